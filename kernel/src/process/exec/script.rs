//! Scripts: files that name, behind `#!`, the program that they are for (Linux: `fs/binfmt_script.c`).

use alloc::vec::Vec;

use super::Image;

/// Bytes of a file that are looked at (`BINPRM_BUF_SIZE`).
const LOOKED_AT: usize = 256;

/// What stands in the first line of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Script {
    /// The path of the program.
    pub program: Vec<u8>,
    /// Its one argument, if there is one.
    pub argument: Option<Vec<u8>>,
}

/// What a file is, by its first bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A script for this program.
    Script(Script),
    /// A script whose first line makes no sense.
    BadScript,
    /// Something else.
    Other,
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Looks at a file.
pub(super) fn look(image: &Image) -> Kind {
    let mut bytes = [0; LOOKED_AT];
    image.read(0, &mut bytes);
    parse(&bytes)
}

fn parse(bytes: &[u8; LOOKED_AT]) -> Kind {
    let Some(line) = bytes.strip_prefix(b"#!") else {
        return Kind::Other;
    };
    let end = line.iter().position(|byte| *byte == b'\n');
    // Without an end in sight the path at least has to have one.
    let text = &line[..end.unwrap_or(line.len())];
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_cut = end.is_none() && text.len() == line.len();
    let text = text.trim_ascii_start();
    let trailing = text.iter().rev().take_while(|byte| is_blank(byte)).count();
    let trimmed = &text[..text.len() - trailing];
    let (program, rest) = match trimmed.iter().position(is_blank) {
        Some(blank) => (&trimmed[..blank], &trimmed[blank..]),
        None if is_cut && trailing == 0 => return Kind::BadScript,
        None => (trimmed, &trimmed[trimmed.len()..]),
    };
    if program.is_empty() {
        return Kind::BadScript;
    }
    let skipped = rest.iter().take_while(|byte| is_blank(byte)).count();
    let argument = &rest[skipped..];
    Kind::Script(Script {
        program: program.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Kind {
        let mut bytes = [0; LOOKED_AT];
        let len = text.len().min(LOOKED_AT);
        bytes[..len].copy_from_slice(&text[..len]);
        parse(&bytes)
    }

    fn script(program: &[u8], argument: Option<&[u8]>) -> Kind {
        Kind::Script(Script {
            program: program.to_vec(),
            argument: argument.map(<[u8]>::to_vec),
        })
    }

    #[test]
    fn the_first_line_names_a_program_and_one_argument() {
        assert_eq!(parsed(b"#!/bin/sh\nexit\n"), script(b"/bin/sh", None));
        assert_eq!(parsed(b"#! /bin/sh  -e x \n"), script(b"/bin/sh", Some(b"-e x")));
        assert_eq!(
            parsed(b"#!/bin/sh"),
            script(b"/bin/sh", None),
            "a file that ends there"
        );
        assert_eq!(parsed(b"\x7fELF"), Kind::Other);
        assert_eq!(parsed(b""), Kind::Other);
    }

    #[test]
    fn a_line_without_a_program_or_an_end_is_refused() {
        assert_eq!(parsed(b"#!\n"), Kind::BadScript);
        assert_eq!(parsed(b"#!   \n"), Kind::BadScript);
        let mut long = alloc::vec![b'x'; 400];
        long[..3].copy_from_slice(b"#!/");
        assert_eq!(parsed(&long), Kind::BadScript);
        // An argument that is cut is taken as it is.
        long[20] = b' ';
        assert!(matches!(parsed(&long), Kind::Script(_)));
    }
}
