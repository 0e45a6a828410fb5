//! The ioctls of a channel, and what the player itself does with channels.
//!
//! ```text
//! reg N AT LEN MODE · unreg N AT LEN · wake N AT LEN · wp N AT LEN MODE
//! copy N TO FROM LEN MODE · move N TO FROM LEN MODE · zero N AT LEN MODE · cont N AT LEN MODE · poison N AT LEN MODE
//! null N VERB                 the ioctl of that verb with a null pointer
//! raw N COMMAND               any command, with an argument of zeros
//! ```
//!
//! An answer is `ok` or the errno, and the output field where the ioctl has one: `untouched` if it was not written.

use std::fmt::Write;

use guest_tests::sys;

use super::super::pen::Pen;
use super::{Bad, Outcome, Words, say_ok};

/// How many channels a script has: the first half it opens, the others come with forks.
pub const CHANNELS: usize = 8;
/// The descriptor of channel 0.
const FIRST: usize = 100;

/// What an output field holds before the call.
const UNTOUCHED: u64 = 0x5555_5555_5555_5555;

/// The ioctls by verb: number, and where in the argument the output field stands, in words of 8 bytes.
const IOCTLS: &[(&str, usize, Option<usize>)] = &[
    ("api", 0xc018_aa3f, None),
    ("reg", 0xc020_aa00, Some(3)),
    ("unreg", 0x8010_aa01, None),
    ("wake", 0x8010_aa02, None),
    ("copy", 0xc028_aa03, Some(4)),
    ("zero", 0xc020_aa04, Some(3)),
    ("move", 0xc028_aa05, Some(4)),
    ("wp", 0xc018_aa06, None),
    ("cont", 0xc020_aa07, Some(3)),
    ("poison", 0xc020_aa08, Some(3)),
];

/// The descriptor of a channel.
pub const fn descriptor(channel: usize) -> usize {
    FIRST + channel
}

/// The next word as a channel's descriptor.
pub fn channel(words: &mut Words<'_>) -> Outcome<usize> {
    match words.number()? {
        channel if channel < CHANNELS as u64 => Ok(descriptor(channel as usize)),
        _ => Err(Bad("no such channel")),
    }
}

/// The ioctl of a verb.
fn ioctl(verb: &'static str) -> Outcome<(usize, Option<usize>)> {
    let found = IOCTLS.iter().find(|(name, ..)| *name == verb);
    found
        .map(|(_, command, field)| (*command, *field))
        .ok_or(Bad(verb))
}

pub fn carry_out(verb: &'static str, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let fd = channel(words)?;
    let mut argument = [UNTOUCHED; 8];
    match verb {
        "null" => {
            let (command, _) = ioctl(words.word()?)?;
            return say_ok(out, sys::call(libc::SYS_ioctl, &[fd, command, 0]));
        }
        "raw" => {
            let command = words.number()?;
            argument = [0; 8];
            return say_ok(
                out,
                sys::call(
                    libc::SYS_ioctl,
                    &[fd, command as usize, &raw mut argument as usize],
                ),
            );
        }
        "copy" | "move" => {
            argument[0] = words.address()? as u64;
            argument[1] = words.address()? as u64;
            argument[2] = words.length()? as u64;
            argument[3] = words.number()?;
        }
        "unreg" | "wake" => {
            argument[0] = words.address()? as u64;
            argument[1] = words.length()? as u64;
        }
        _ => {
            argument[0] = words.address()? as u64;
            argument[1] = words.length()? as u64;
            argument[2] = words.number()?;
        }
    }
    let (command, field) = ioctl(verb)?;
    say_ok(
        out,
        sys::call(libc::SYS_ioctl, &[fd, command, &raw mut argument as usize]),
    )?;
    if let Some(field) = field {
        match argument[field] {
            UNTOUCHED => out.write_str(" untouched")?,
            ioctls if verb == "reg" => write!(out, " {ioctls:#x}")?,
            value => write!(out, " {}", value as i64)?,
        }
    }
    Ok(())
}

/// Whether a step is an ioctl on a channel, which keeps the channel open while it waits.
pub fn is_ioctl(what: &str) -> bool {
    let verb = what.split(' ').next().unwrap_or_default();
    IOCTLS.iter().any(|(name, ..)| *name == verb)
}

/// Unread and unresolved faults of an open channel, from its fdinfo.
pub fn counts(channel: usize) -> Option<(u64, u64)> {
    let mut path = Pen::<64>::new();
    let _ = write!(path, "/proc/self/fdinfo/{}\0", descriptor(channel));
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let place = path.text().as_ptr() as usize;
    let file = sys::call(
        libc::SYS_openat,
        &[libc::AT_FDCWD as usize, place, flags as usize],
    )
    .ok()?;
    let mut text = [0_u8; 1024];
    let read = sys::call(libc::SYS_read, &[file, text.as_mut_ptr() as usize, text.len()]);
    let _ = sys::call(libc::SYS_close, &[file]);
    let text = std::str::from_utf8(&text[..read.ok()?]).ok()?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Some((field("pending:")?, field("total:")?))
}

/// Reads one message and forgets it. A descriptor that came with it is closed. False when there is none.
pub fn drop_one_message(channel: usize) -> bool {
    let fd = descriptor(channel);
    let Ok(flags) = sys::call(libc::SYS_fcntl, &[fd, libc::F_GETFL as usize]) else {
        return false;
    };
    let flags = flags | libc::O_NONBLOCK as usize;
    let _ = sys::call(libc::SYS_fcntl, &[fd, libc::F_SETFL as usize, flags]);
    let mut message = [0_u64; 4];
    if sys::call(libc::SYS_read, &[fd, &raw mut message as usize, 32]) != Ok(32) {
        return false;
    }
    if message[0] as u8 == super::message::FORK {
        let _ = sys::call(libc::SYS_close, &[message[1] as usize]);
    }
    true
}

/// Unregisters a range. False when it cannot be.
pub fn unregister(channel: usize, start: usize, len: usize) -> bool {
    let argument = [start, len];
    ioctl("unreg").is_ok_and(|(command, _)| {
        let words = [descriptor(channel), command, argument.as_ptr() as usize];
        sys::call(libc::SYS_ioctl, &words).is_ok()
    })
}

/// Closes a channel. False when it was not open.
pub fn close(channel: usize) -> bool {
    sys::call(libc::SYS_close, &[descriptor(channel)]).is_ok()
}
