//! `#!` lines, as `fs/binfmt_script.c` reads them (Linux 5.1 and later).

use crate::LoadError;

/// How much of a file decides what it is (`BINPRM_BUF_SIZE`): read as much, or all there is.
pub const HEAD_SIZE: usize = 256;

/// How many `#!` files may stand before the program that runs them all; one more is `ELOOP`.
pub const MAX_DEPTH: usize = 5;

/// What a `#!` line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Path of the interpreter. May be empty, which is `ENOENT`.
    pub interpreter: Vec<u8>,
    /// The rest of the line, spaces inside included.
    pub argument: Option<Vec<u8>>,
}

impl Script {
    /// Reads the `#!` line in `head`, the first [`HEAD_SIZE`] bytes of a file. `None`: the file is
    /// no script.
    ///
    /// Errors: [`LoadError::Script`] (`ENOEXEC`) for a line that names no interpreter, or one that
    /// may go on behind `head`.
    pub fn parse(head: &[u8]) -> Result<Option<Script>, LoadError> {
        if !head.starts_with(b"#!") {
            return Ok(None);
        }
        // The kernel's buffer has NULs behind a short file, and one in place of its last byte.
        let mut buf = [0; HEAD_SIZE];
        let n = head.len().min(HEAD_SIZE);
        buf[..n].copy_from_slice(&head[..n]);
        let line = buf
            .iter()
            .position(|&b| b == b'\n' || b == 0)
            .filter(|&at| buf[at] == b'\n');
        let mut end = match line {
            Some(newline) => newline,
            None => {
                let name = buf[2..]
                    .iter()
                    .position(|&b| !blank(b))
                    .ok_or(LoadError::Script)?;
                if !buf[2 + name..].iter().any(|&b| blank(b) || b == 0) {
                    return Err(LoadError::Script);
                }
                HEAD_SIZE - 1
            }
        };
        while end > 2 && blank(buf[end - 1]) {
            end -= 1;
        }
        let text = &buf[2..end];
        let start = text
            .iter()
            .position(|&b| !blank(b))
            .ok_or(LoadError::Script)?;
        let text = &text[start..];
        let name = text
            .iter()
            .position(|&b| blank(b) || b == 0)
            .unwrap_or(text.len());
        let (interpreter, rest) = text.split_at(name);
        let argument = rest
            .iter()
            .position(|&b| !blank(b))
            .map(|at| &rest[at..])
            .filter(|_| rest.first() != Some(&0))
            .map(|rest| {
                let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
                rest[..end].to_vec()
            });
        Ok(Some(Script {
            interpreter: interpreter.to_vec(),
            argument,
        }))
    }

    /// What takes the place of `argv[0]` when the interpreter runs the script at `path`.
    pub fn argv(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut argv = vec![self.interpreter.clone()];
        argv.extend(self.argument.clone());
        argv.push(path.to_vec());
        argv
    }
}

fn blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Option<(String, Option<String>)> {
        let text = |v: Vec<u8>| String::from_utf8(v).unwrap();
        Script::parse(line)
            .ok()
            .flatten()
            .map(|s| (text(s.interpreter), s.argument.map(text)))
    }

    fn some(name: &str, arg: Option<&str>) -> Option<(String, Option<String>)> {
        Some((name.into(), arg.map(Into::into)))
    }

    #[test]
    fn names_and_arguments() {
        assert_eq!(parse(b"#!/bin/sh\nrest"), some("/bin/sh", None));
        assert_eq!(parse(b"#! \t/bin/sh \t \nrest"), some("/bin/sh", None));
        assert_eq!(
            parse(b"#!/bin/sh  -e  -u \n"),
            some("/bin/sh", Some("-e  -u"))
        );
        assert_eq!(parse(b"#!/bin/sh -e"), some("/bin/sh", Some("-e")));
        assert_eq!(parse(b"#!/bin/sh"), some("/bin/sh", None));
        assert_eq!(parse(b"#!/bin/sh -a\0b\n"), some("/bin/sh", Some("-a")));
        assert_eq!(parse(b"#!\0"), some("", None));
        assert_eq!(parse(b"#!"), some("", None));
    }

    #[test]
    fn no_interpreter() {
        for line in [&b"#!\n"[..], b"#! \t \n", &[b' '; 300]] {
            assert_eq!(parse(line), None);
        }
        let mut blanks = b"#!".to_vec();
        blanks.resize(300, b' ');
        assert!(Script::parse(&blanks).is_err());
    }

    #[test]
    fn a_long_line_may_lose_its_argument_but_not_its_interpreter() {
        let mut line = b"#!/".to_vec();
        line.resize(300, b'a');
        assert!(Script::parse(&line).is_err());
        line[100] = b' ';
        let script = Script::parse(&line).unwrap().unwrap();
        assert_eq!(script.interpreter.len(), 98);
        assert_eq!(script.argument.unwrap().len(), 255 - 101);
    }
}
