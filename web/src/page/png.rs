//! PNG files: texts inside of them (which link shows the picture), and animations made of several.

/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Longest text that is read, bytes.
const MAX_TEXT: usize = 8000;

/// The chunks that make the picture and its movement. Whatever else a browser writes is left out of saved files: Firefox marks every PNG
/// of a canvas with a number of the profile's own (chunk `deBG`), by which pictures from one visitor could be told from another's.
const KEPT: [&[u8; 4]; 8] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND"];

/// One part of a file: its kind and its content.
type Chunk<'a> = ([u8; 4], &'a [u8]);

/// The file is a PNG, or says so.
pub fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

/// The chunks of a file; none if it is not a PNG or is damaged. Checksums are not looked at: browsers write right ones, and what is
/// read here is checked by what it means.
fn chunks(png: &[u8]) -> Option<Vec<Chunk<'_>>> {
    let mut rest = png.strip_prefix(SIGNATURE)?;
    let mut out = vec![];
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (kind, tail) = tail.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        out.push((*kind, tail.get(..length)?));
        rest = tail.get(length + 4..)?;
    }
    (out.first()?.0 == *b"IHDR").then_some(out)
}

/// Appends a chunk with its length and checksum.
fn put(out: &mut Vec<u8>, kind: &[u8; 4], parts: &[&[u8]]) {
    let data = parts.concat();
    let checked = [kind.as_slice(), &data].concat();
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(&checked);
    out.extend(crc32(&checked).to_be_bytes());
}

/// The file's picture with text chunks (keyword, text) after its header: keywords of at most 79 ASCII letters; what is not ASCII in a text becomes
/// a question mark.
///
/// # Errors
/// If the file is not a PNG.
pub fn with_texts(png: &[u8], texts: &[(&str, String)]) -> Result<Vec<u8>, String> {
    let chunks = chunks(png).ok_or("the browser's PNG is not one")?;
    let mut out = SIGNATURE.to_vec();
    for (i, (kind, data)) in chunks.iter().filter(|c| KEPT.contains(&&c.0)).enumerate() {
        put(&mut out, kind, &[data]);
        if i == 0 {
            for (keyword, text) in texts {
                let plain: String = text.chars().map(|c| if c.is_ascii() && !c.is_control() { c } else { '?' }).collect();
                put(&mut out, b"tEXt", &[keyword.as_bytes(), b"\0", plain.as_bytes()]);
            }
        }
    }
    Ok(out)
}

/// The text that a file has under a keyword.
pub fn text(png: &[u8], keyword: &str) -> Option<String> {
    let found = chunks(png)?.into_iter().filter(|c| c.0 == *b"tEXt").find_map(|(_, data)| {
        let end = data.iter().position(|b| *b == 0)?;
        (&data[..end] == keyword.as_bytes()).then(|| &data[end + 1..])
    })?;
    (found.len() <= MAX_TEXT && found.is_ascii()).then(|| String::from_utf8_lossy(found).into_owned())
}

/// An animation without end (APNG) of images of one size, each shown for `ms` milliseconds: `order` names the image of each frame.
///
/// # Errors
/// If an image is not a PNG, or has another header than the first.
pub fn animation(images: &[Vec<u8>], order: &[usize], ms: u16) -> Result<Vec<u8>, String> {
    let images: Option<Vec<Vec<Chunk<'_>>>> = images.iter().map(|i| chunks(i)).collect();
    let images = images.filter(|i| !i.is_empty()).ok_or("the browser's PNG is not one")?;
    let header = images[0][0].1;
    if images.iter().any(|i| i[0].1 != header) || header.len() != 13 {
        return Err("the browser's PNGs differ in form".into());
    }
    let mut out = SIGNATURE.to_vec();
    put(&mut out, b"IHDR", &[header]);
    put(&mut out, b"acTL", &[&(order.len() as u32).to_be_bytes(), &0u32.to_be_bytes()]);
    let mut sequence = 0u32;
    let mut next = || {
        sequence += 1;
        (sequence - 1).to_be_bytes()
    };
    for (k, &image) in order.iter().enumerate() {
        let chunks = images.get(image).ok_or("a frame without image")?;
        // Width and height, no offset, the delay in thousandths of a second, the whole frame replaced.
        put(&mut out, b"fcTL", &[&next(), &header[..8], &[0; 8], &ms.to_be_bytes(), &1000u16.to_be_bytes(), &[0, 0]]);
        for (_, data) in chunks.iter().filter(|c| c.0 == *b"IDAT") {
            if k == 0 {
                put(&mut out, b"IDAT", &[data]);
            } else {
                put(&mut out, b"fdAT", &[&next(), data]);
            }
        }
    }
    put(&mut out, b"IEND", &[]);
    Ok(out)
}

/// The checksum of PNG chunks (polynomial 0xEDB88320, reflected).
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 });
    !data.iter().fold(u32::MAX, step)
}
