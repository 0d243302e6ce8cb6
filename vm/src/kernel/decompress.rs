//! Unpacking what kernels and their modules are packed with. Files come from the user or the
//! distribution; still, sizes are bounded.

use std::io::Read;

/// Most bytes that anything unpacks to: 512 MiB.
const MAX: u64 = 512 << 20;

/// How bytes are packed, by the magic number that they begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip(1)
    Gzip,
    /// xz(1)
    Xz,
    /// zstd(1)
    Zstd,
    /// `lz4 -l`: the older form, which kernels use.
    Lz4,
}

impl Packing {
    /// The packing that a magic number tells of.
    pub fn of(bytes: &[u8]) -> Option<Packing> {
        let starts = |magic: &[u8]| bytes.starts_with(magic);
        Some(match () {
            () if starts(&[0x1f, 0x8b]) => Packing::Gzip,
            () if starts(&[0xfd, b'7', b'z', b'X', b'Z', 0]) => Packing::Xz,
            () if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => Packing::Zstd,
            () if starts(&LZ4_MAGIC) => Packing::Lz4,
            () => return None,
        })
    }
}

/// Unpacks. Bytes behind the end of what is packed are ignored, for kernels have some there.
pub fn unpack(packing: Packing, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("does not unpack ({packing:?}): {e}");
    let all = |from: &mut dyn Read| {
        let mut out = Vec::new();
        from.take(MAX + 1)
            .read_to_end(&mut out)
            .map_err(|e| failed(&e))?;
        if out.len() as u64 > MAX {
            return Err(failed(&"too large"));
        }
        Ok(out)
    };
    match packing {
        Packing::Gzip => all(&mut flate2::read::GzDecoder::new(bytes)),
        Packing::Xz => all(&mut lzma_rust2::XzReader::new(bytes, false)),
        Packing::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
            all(&mut decoder.map_err(|e| failed(&e))?)
        }
        Packing::Lz4 => lz4_legacy(bytes).map_err(|e| failed(&e)),
    }
}

const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Blocks of 8 MiB, each with its packed length before it ("Legacy frame" of lz4's frame format).
fn lz4_legacy(bytes: &[u8]) -> Result<Vec<u8>, String> {
    const BLOCK: usize = 8 << 20;
    let mut rest = bytes.strip_prefix(&LZ4_MAGIC).ok_or("no magic number")?;
    let mut out = Vec::new();
    let mut block = vec![0; BLOCK];
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        // The unpacked size, which a kernel build appends, is no block.
        let Some((packed, behind)) = behind.split_at_checked(length) else {
            break;
        };
        if length == 0 {
            break;
        }
        let n = lz4_flex::block::decompress_into(packed, &mut block).map_err(|e| e.to_string())?;
        out.extend_from_slice(block.get(..n).unwrap_or_default());
        if out.len() as u64 > MAX {
            return Err("too large".into());
        }
        rest = behind;
    }
    match out.is_empty() {
        true => Err("is cut short".into()),
        false => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_lz4_frames_unpack() {
        let text = b"the same, the same, the same, the same".repeat(10);
        let packed = lz4_flex::block::compress(&text);
        let mut frame = LZ4_MAGIC.to_vec();
        frame.extend((packed.len() as u32).to_le_bytes());
        frame.extend(&packed);
        // What a kernel build appends: the unpacked length.
        frame.extend((text.len() as u32).to_le_bytes());
        assert_eq!(Packing::of(&frame), Some(Packing::Lz4));
        assert_eq!(unpack(Packing::Lz4, &frame).unwrap(), text);
        assert!(unpack(Packing::Lz4, &frame[..9]).is_err());
        let mut broken = frame.clone();
        let end = broken.len() - 4;
        broken[8..end].fill(0xff);
        assert!(unpack(Packing::Lz4, &broken).is_err_and(|e| e.contains("does not unpack")));
    }

    #[test]
    fn gzip_unpacks_and_ignores_what_follows() {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"kernel").unwrap();
        let mut bytes = gz.finish().unwrap();
        bytes.extend([9, 9, 9, 9]);
        assert_eq!(Packing::of(&bytes), Some(Packing::Gzip));
        assert_eq!(unpack(Packing::Gzip, &bytes).unwrap(), b"kernel");
    }
}
