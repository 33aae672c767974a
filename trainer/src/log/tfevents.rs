//! TensorBoard event files, written by hand: framing of TFRecord, and the few fields of three protobuf
//! messages that scalars and images need (tensorflow's `event.proto` and `summary.proto`).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Table of CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), one entry a byte.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { 0x82F6_3B78 ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
};

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |c, &b| CRC_TABLE[((c ^ u32::from(b)) & 255) as usize] ^ (c >> 8))
}

/// TFRecord's masked checksum: a checksum stored beside data that may itself hold checksums.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// One TFRecord: length u64, its checksum, the data, its checksum; all little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }
    fn varint(mut self, field: u64, v: u64) -> Self {
        self.raw_varint(field << 3);
        self.raw_varint(v);
        self
    }
    fn double(mut self, field: u64, v: f64) -> Self {
        self.raw_varint(field << 3 | 1);
        self.0.extend(v.to_le_bytes());
        self
    }
    fn float(mut self, field: u64, v: f32) -> Self {
        self.raw_varint(field << 3 | 5);
        self.0.extend(v.to_le_bytes());
        self
    }
    fn bytes(mut self, field: u64, v: &[u8]) -> Self {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(v.len() as u64);
        self.0.extend(v);
        self
    }
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//         SessionLog session_log = 7; }
// Summary { repeated Value value = 1; }
// Value { string tag = 1; float simple_value = 2; Image image = 4; }
// Image { int32 height = 1; int32 width = 2; int32 colorspace = 3; bytes encoded_image_string = 4; }
// SessionLog { SessionStatus status = 1; }  START = 1
fn event(wall_time: f64, step: u64) -> Message {
    Message::default().double(1, wall_time).varint(2, step)
}

fn scalar_value(tag: &str, value: f32) -> Message {
    Message::default().bytes(1, tag.as_bytes()).float(2, value)
}

/// A PNG file with what TensorBoard wants to know of it.
#[derive(Debug, Clone, Copy)]
pub struct Png<'a> {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// 1 grey, 3 RGB.
    pub channels: u32,
    /// The file's bytes.
    pub bytes: &'a [u8],
}

/// Writes one event file. The step of every event is the number of images seen.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Starts a new event file in `dir` (made if absent) for a run that stands at `images_seen`. On a
    /// resumed run TensorBoard then forgets the points of earlier files at or after that position.
    ///
    /// # Errors
    /// If the folder or the file cannot be made.
    pub fn create(dir: &Path, images_seen: u64) -> Result<EventWriter> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot make", dir.display()))?;
        // TensorBoard reads the files of a folder in the order of their names.
        let name =
            format!("events.out.tfevents.{:010}.limbeck.{}.{}", now() as u64, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        let file = File::create_new(&path).with_context(|| format!("{}: cannot make", path.display()))?;
        let mut writer = EventWriter { file, path };
        writer.append(Message::default().double(1, now()).bytes(3, b"brain.Event:2"))?;
        if images_seen > 0 {
            let start = Message::default().varint(1, 1);
            writer.append(event(now(), images_seen + 1).bytes(7, &start.0))?;
        }
        Ok(writer)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes scalars of one step as one event.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn scalars(&mut self, images_seen: u64, values: &[(&str, f32)]) -> Result<()> {
        let summary = values.iter().fold(Message::default(), |m, (tag, v)| m.bytes(1, &scalar_value(tag, *v).0));
        self.append(event(now(), images_seen).bytes(5, &summary.0))
    }

    /// Writes a PNG file as an image summary.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn image(&mut self, images_seen: u64, tag: &str, png: Png<'_>) -> Result<()> {
        let image =
            Message::default().varint(1, png.height.into()).varint(2, png.width.into()).varint(3, png.channels.into()).bytes(4, png.bytes);
        let value = Message::default().bytes(1, tag.as_bytes()).bytes(4, &image.0);
        let summary = Message::default().bytes(1, &value.0);
        self.append(event(now(), images_seen).bytes(5, &summary.0))
    }

    fn append(&mut self, event: Message) -> Result<()> {
        self.file
            .write_all(&frame(&event.0))
            .and_then(|()| self.file.flush())
            .with_context(|| format!("{}: cannot append", self.path.display()))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_known_answers() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // RFC 3720, B.4: 32 bytes of zeros, of ones, and ascending.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[255; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
    }

    /// A field of a decoded message: number, and the value as a number's bits or as bytes.
    #[derive(Debug, PartialEq)]
    enum Field {
        Bits(u64, u64),
        Bytes(u64, Vec<u8>),
    }

    fn decode(mut m: &[u8]) -> Vec<Field> {
        fn varint(m: &mut &[u8]) -> u64 {
            let mut v = 0;
            for shift in (0..).step_by(7) {
                let b = m[0];
                *m = &m[1..];
                v |= u64::from(b & 0x7f) << shift;
                if b < 0x80 {
                    return v;
                }
            }
            unreachable!()
        }
        let mut out = Vec::new();
        while !m.is_empty() {
            let key = varint(&mut m);
            let take = |m: &mut &[u8], n: usize| {
                let (a, b) = m.split_at(n);
                *m = b;
                a.to_vec()
            };
            out.push(match key & 7 {
                0 => Field::Bits(key >> 3, varint(&mut m)),
                1 => Field::Bits(key >> 3, u64::from_le_bytes(take(&mut m, 8).try_into().unwrap())),
                5 => Field::Bits(key >> 3, u32::from_le_bytes(take(&mut m, 4).try_into().unwrap()).into()),
                2 => {
                    let n = varint(&mut m) as usize;
                    Field::Bytes(key >> 3, take(&mut m, n))
                }
                other => panic!("wire type {other}"),
            });
        }
        out
    }

    /// Undoes the framing; every checksum must hold.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let unmask = |m: [u8; 4]| u32::from_le_bytes(m).wrapping_sub(0xA282_EAD8).rotate_left(15);
        let mut out = Vec::new();
        while !file.is_empty() {
            let n = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(unmask(file[8..12].try_into().unwrap()), crc32c(&file[..8]));
            let data = &file[12..12 + n];
            assert_eq!(unmask(file[12 + n..16 + n].try_into().unwrap()), crc32c(data));
            out.push(data.to_vec());
            file = &file[16 + n..];
        }
        out
    }

    #[test]
    fn a_file_decodes_to_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut w = EventWriter::create(&dir.path().join("tb"), 0).unwrap();
        w.scalars(300, &[("loss", 0.5), ("lr", 4e-4)]).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        w.image(70_000, "grid", Png { height: 28, width: 300, channels: 1, bytes: &bytes }).unwrap();
        let records = records(&std::fs::read(w.path()).unwrap());
        assert_eq!(records.len(), 3);

        let head = decode(&records[0]);
        assert_eq!(head[1], Field::Bytes(3, b"brain.Event:2".to_vec()));
        let Field::Bits(1, time) = head[0] else { panic!("{head:?}") };
        assert!(f64::from_bits(time) > 1.7e9);

        let scalars = decode(&records[1]);
        assert_eq!(scalars[1], Field::Bits(2, 300));
        let Field::Bytes(5, summary) = &scalars[2] else { panic!("{scalars:?}") };
        for (field, (tag, v)) in decode(summary).iter().zip([("loss", 0.5f32), ("lr", 4e-4)]) {
            let Field::Bytes(1, value) = field else { panic!("{field:?}") };
            let expected = [Field::Bytes(1, tag.into()), Field::Bits(2, v.to_bits().into())];
            assert_eq!(decode(value), expected);
        }

        let image = decode(&records[2]);
        assert_eq!(image[1], Field::Bits(2, 70_000));
        let Field::Bytes(5, summary) = &image[2] else { panic!("{image:?}") };
        let [Field::Bytes(1, value)] = &decode(summary)[..] else { panic!("{summary:?}") };
        let [Field::Bytes(1, tag), Field::Bytes(4, image)] = &decode(value)[..] else { panic!() };
        assert_eq!(tag, b"grid");
        let expected = [Field::Bits(1, 28), Field::Bits(2, 300), Field::Bits(3, 1), Field::Bytes(4, bytes)];
        assert_eq!(decode(image), expected);
    }

    #[test]
    fn a_resumed_run_starts_a_file_that_purges_later_points() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), 0).unwrap();
        let second = EventWriter::create(dir.path(), 500).unwrap();
        assert!(second.path() > first.path());
        let records = records(&std::fs::read(second.path()).unwrap());
        let start = decode(&records[1]);
        // TensorBoard drops points at the step of START and after; the point at 500 itself stays.
        assert_eq!(start[1..], [Field::Bits(2, 501), Field::Bytes(7, vec![8, 1])]);
    }
}
