//! Text inside a PNG: which link shows the picture.

/// Length of the file's signature and of its first chunk, the header, which texts may follow.
const HEADER: usize = 8 + 25;

/// The file with a text chunk `keyword`: `text` (both Latin-1; the keyword at most 79 bytes). A file that is not a PNG stays as it is.
pub fn with_text(png: &[u8], keyword: &str, text: &str) -> Vec<u8> {
    if png.len() < HEADER || !png.starts_with(b"\x89PNG\r\n\x1a\n") || !text.is_ascii() {
        return png.to_vec();
    }
    let data = [b"tEXt".as_slice(), keyword.as_bytes(), b"\0", text.as_bytes()].concat();
    let length = (data.len() - 4) as u32;
    [&png[..HEADER], &length.to_be_bytes(), &data, &crc32(&data).to_be_bytes(), &png[HEADER..]].concat()
}

/// The checksum of PNG chunks (polynomial 0xEDB88320, reflected).
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 });
    !data.iter().fold(u32::MAX, step)
}
