//! Opening and closing channels, and reading from them.
//!
//! ```text
//! uffd N FLAGS [FEATURES]      opens channel N; with features, initialises it as well
//! api N API FEATURES           prints the answer's features and ioctls
//! read N [K|short|bad]         one message, or up to K; into a buffer that is too short, or that cannot be written
//! poll N · close N
//! ```
//!
//! A read of several messages takes no more than there are unread faults: an event that is read lets its sender go on, and
//! two that go on at once have no order. The descriptor that a FORK message brings becomes the first free channel of the
//! second half.

use std::fmt::{self, Write};

use guest_tests::sys;

use super::super::arena::Place;
use super::super::control::{ACTORS, Control};
use super::channel::{CHANNELS, channel, counts, descriptor};
use super::memory::renumber;
use super::{Bad, Outcome, Words, number, say, say_ok};

/// The first byte of a FORK message.
pub const FORK: u8 = 0x13;

/// Messages that are read at once, at most.
const MOST: usize = 2 * ACTORS.len();

pub fn carry_out(verb: &str, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let fd = channel(words)?;
    match verb {
        "uffd" => open(fd, words, out),
        "api" => {
            let (api, features) = (words.number()?, words.number()?);
            initialise(fd, api, features, out)
        }
        "read" => read(fd, words, out),
        "poll" => {
            let mut poll = libc::pollfd {
                fd: fd as i32,
                events: !0,
                revents: 0,
            };
            match sys::call(libc::SYS_poll, &[&raw mut poll as usize, 1, 0]) {
                Ok(_) => write!(out, "{:#x}", poll.revents)?,
                Err(errno) => write!(out, "{errno}")?,
            }
            Ok(())
        }
        "close" => say_ok(out, sys::call(libc::SYS_close, &[fd])),
        _ => Err(Bad("no such verb")),
    }
}

fn open(fd: usize, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let flags = words.number()?;
    if sys::call(libc::SYS_fcntl, &[fd, libc::F_GETFD as usize]).is_ok() {
        return Ok(out.write_str("open already")?);
    }
    let opened = sys::call(libc::SYS_userfaultfd, &[flags as usize]).and_then(|fresh| renumber(fresh, fd));
    say_ok(out, opened)?;
    match words.more() {
        Some(features) if opened.is_ok() => {
            out.write_char(' ')?;
            initialise(fd, 0xaa, number(features).ok_or(Bad(features))?, out)
        }
        _ => Ok(()),
    }
}

fn initialise(fd: usize, api: u64, features: u64, out: &mut impl Write) -> Outcome {
    let mut argument = [api, features, 0x5555];
    say_ok(
        out,
        sys::call(libc::SYS_ioctl, &[fd, 0xc018_aa3f, &raw mut argument as usize]),
    )?;
    Ok(write!(
        out,
        " {:#x} {:#x} {:#x}",
        argument[0], argument[1], argument[2]
    )?)
}

fn read(fd: usize, words: &mut Words<'_>, out: &mut impl Write) -> Outcome {
    let mut buffer = [[0_u64; 4]; MOST];
    let channel = fd - descriptor(0);
    let pending = || counts(channel).map_or(0, |(pending, _)| pending as usize);
    let room = match words.more() {
        None => 32,
        Some("short") => 31,
        Some("bad") => {
            return say(out, sys::call(libc::SYS_read, &[fd, 0xffff_8880_0000_0000, 32]));
        }
        Some(most) => {
            let most = number(most).ok_or(Bad(most))? as usize;
            // A buffer that is not a whole number of messages takes the whole ones.
            32 * most.min(pending()).clamp(1, MOST) + 8
        }
    };
    let control = words.stage.control;
    if control.disorder() && pending() > 0 {
        return read_sorted(fd, pending().min(MOST), &mut buffer, control, out);
    }
    match sys::call(libc::SYS_read, &[fd, buffer.as_mut_ptr() as usize, room]) {
        Ok(len) => {
            write!(out, "{len}:")?;
            tell(&buffer[..len / 32], control, out)?;
        }
        Err(errno) => write!(out, "{errno}")?,
    }
    Ok(())
}

/// Reads all faults that wait to be read, in an order that does not depend on who came first.
fn read_sorted(
    fd: usize,
    pending: usize,
    buffer: &mut [[u64; 4]; MOST],
    control: &Control,
    out: &mut impl Write,
) -> Outcome {
    let read = sys::call(libc::SYS_read, &[fd, buffer.as_mut_ptr() as usize, 32 * pending]);
    let Ok(len) = read else {
        return say(out, read);
    };
    let messages = &mut buffer[..len / 32];
    messages.sort_unstable_by_key(|words| (words[2], words[1], control.name_of(words[3] as u32)));
    write!(out, "{len} in any order:")?;
    tell(messages, control, out)
}

fn tell(messages: &[[u64; 4]], control: &Control, out: &mut impl Write) -> Outcome {
    for words in messages {
        write!(out, " {}", Message { words, control })?;
    }
    Ok(())
}

/// A message as text. A descriptor in it is given its place when the text is written.
struct Message<'a> {
    words: &'a [u64; 4],
    control: &'a Control,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [head, first, second, third] = *self.words;
        match head {
            0x12 => {
                let thread = self.control.name_of(third as u32);
                write!(f, "[fault {first} {} {thread}", Place(second as usize))?;
                if third >> 32 != 0 {
                    write!(f, " {third:#x}")?;
                }
                f.write_char(']')
            }
            0x13 => {
                let free = |index: &usize| {
                    sys::call(libc::SYS_fcntl, &[descriptor(*index), libc::F_GETFD as usize]).is_err()
                };
                let flags = sys::call(libc::SYS_fcntl, &[first as usize, libc::F_GETFL as usize]);
                let own = (CHANNELS / 2..CHANNELS).find(free);
                match own.map(|own| (own, renumber(first as usize, descriptor(own)))) {
                    Some((own, Ok(_))) => write!(f, "[fork u{own} flags {:#x}", flags.unwrap_or_default())?,
                    _ => {
                        let _ = sys::call(libc::SYS_close, &[first as usize]);
                        f.write_str("[fork, and no channel is free")?;
                    }
                }
                write!(f, " {second} {third}]")
            }
            0x14 => {
                write!(
                    f,
                    "[remap {} {} {third:#x}]",
                    Place(first as usize),
                    Place(second as usize)
                )
            }
            0x15 | 0x16 => {
                let name = if head == 0x15 { "remove" } else { "unmap" };
                write!(
                    f,
                    "[{name} {} {} {third}]",
                    Place(first as usize),
                    Place(second as usize)
                )
            }
            _ => write!(f, "[{head:#x} {first:#x} {second:#x} {third:#x}]"),
        }
    }
}
