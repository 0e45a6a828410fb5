//! What steps do. A step is a verb and its words; what it says is text for the transcript.
//!
//! Steps take no memory from the heap: the thread that carries one out may be forked or killed in the middle of it.

pub mod channel;
mod look;
mod memory;
mod message;
pub mod process;

use std::fmt::{self, Write};

use guest_tests::errno::Errno;
use guest_tests::sys::Answer;

use super::arena;
use super::control::Control;
use super::script::{Case, Step};

/// Who carries out what.
pub struct Stage {
    pub case: &'static Case<'static>,
    pub control: &'static Control,
    /// The actor's index.
    pub me: usize,
}

/// Why a step could not be carried out: the script is wrong.
pub struct Bad(&'static str);

/// What a step has come to, for whoever carries it out.
pub type Outcome<T = ()> = Result<T, Bad>;

impl From<fmt::Error> for Bad {
    fn from(_: fmt::Error) -> Self {
        Self("no room for the answer")
    }
}

/// Carries the step out. Returns in two processes, if it forks: in the child with the actor that the child is.
pub fn carry_out(stage: &Stage, step: &Step<'static>, number: usize, out: &mut impl Write) -> Option<usize> {
    let mut words = Words {
        words: step.what.split(' '),
        stage,
        number,
    };
    let verb = words.word().unwrap_or_default();
    if verb == "fork" {
        return match process::fork(&mut words, out) {
            Ok(child) => child,
            Err(Bad(word)) => {
                let _ = write!(out, "bad step: {word}");
                None
            }
        };
    }
    let done = match verb {
        "r" | "w" => process::touch(verb, &mut words, out),
        "read" | "poll" | "uffd" | "api" | "close" => message::carry_out(verb, &mut words, out),
        "pagemap" | "vmas" | "scan" | "incore" => look::carry_out(verb, &mut words, out),
        "kill" | "signal" | "vmread" | "vmwrite" | "sysread" | "syswrite" => {
            process::carry_out(verb, &mut words, out)
        }
        _ if memory::VERBS.contains(&verb) => memory::carry_out(verb, &mut words, out),
        _ => channel::carry_out(verb, &mut words, out),
    };
    if let Err(Bad(word)) = done {
        let _ = write!(out, "bad step: {word}");
    }
    None
}

/// The words of a step, taken one by one.
pub struct Words<'a> {
    words: std::str::Split<'static, char>,
    pub stage: &'a Stage,
    /// The step's number in the case.
    pub number: usize,
}

impl Words<'_> {
    /// The next word.
    pub fn word(&mut self) -> Outcome<&'static str> {
        self.words.next().ok_or(Bad("a word is missing"))
    }

    /// The next word, if there is one.
    pub fn more(&mut self) -> Option<&'static str> {
        self.words.next()
    }

    /// The next word as an address.
    pub fn address(&mut self) -> Outcome<usize> {
        let word = self.word()?;
        arena::address(word).ok_or(Bad(word))
    }

    /// The next word as a length.
    pub fn length(&mut self) -> Outcome<usize> {
        let word = self.word()?;
        arena::length(word).ok_or(Bad(word))
    }

    /// The next word as a number, decimal or with 0x.
    pub fn number(&mut self) -> Outcome<u64> {
        let word = self.word()?;
        number(word).ok_or(Bad(word))
    }

    /// The byte that this step writes.
    pub fn value(&self) -> u8 {
        (self.number % 127) as u8 + 1
    }

    /// The byte of a page that belongs to the actor: no two ever write the same one.
    pub fn own_byte(&self) -> usize {
        self.stage.me * 64
    }
}

/// A number, decimal or with 0x.
pub fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Writes `ok` or the errno.
fn say_ok<T>(out: &mut impl Write, answer: Answer<T>) -> Outcome {
    match answer {
        Ok(_) => out.write_str("ok")?,
        Err(errno) => write!(out, "{errno}")?,
    }
    Ok(())
}

/// Writes a value or the errno.
fn say(out: &mut impl Write, answer: Result<impl fmt::Display, Errno>) -> Outcome {
    match answer {
        Ok(value) => write!(out, "{value}")?,
        Err(errno) => write!(out, "{errno}")?,
    }
    Ok(())
}
