//! `execve` and `execveat`.

use alloc::vec;
use alloc::vec::Vec;

use super::file::named_program;
use super::{After, Call, Error, Result, UserMode, user};
use crate::abi::errno::Errno;
use crate::mm::frame::allocator;
use crate::process::exec::{Executed, Found, execute};
use crate::process::limits::Resource;

/// Most bytes of one string (`MAX_ARG_STRLEN`).
const LONGEST: usize = 128 << 10;
/// Least and most bytes of all of them together.
const LEAST: u64 = 128 << 10;
const MOST: u64 = 6 << 20;

/// Reads a null-terminated array of strings; `room` is what may still be used.
fn strings(mut at: u64, room: &mut usize) -> core::result::Result<Vec<Vec<u8>>, Error> {
    let mut strings = Vec::new();
    if at == 0 {
        return Ok(strings);
    }
    loop {
        // Others may be reading theirs at the same time.
        if allocator().is_short() {
            return Err(Errno::ENOMEM.into());
        }
        let pointer = user::read_u64(at)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = match user::read_string(pointer, LONGEST) {
            Err(Error::Errno(Errno::ENAMETOOLONG)) => return Err(Errno::E2BIG.into()),
            string => string?,
        };
        // The string, its zero byte and the pointer to it.
        let taken = string.len() + 1 + 8;
        *room = room.checked_sub(taken).ok_or(Errno::E2BIG)?;
        strings.push(string);
        at = at.wrapping_add(8);
    }
}

fn run(call: &Call<'_>, user_mode: &mut UserMode<'_>, found: Found, args: u64, env: u64) -> Result {
    let stack = call.thread.process().limits().get(Resource::Stack).soft;
    let mut room = (stack / 4).clamp(LEAST, MOST) as usize;
    let mut args = strings(args, &mut room)?;
    let env = strings(env, &mut room)?;
    // They are copied twice more.
    let len: usize = args.iter().chain(&env).map(|string| string.len() + 8).sum();
    user::check_room(4 * len)?;
    if args.is_empty() {
        // As Linux: programs find at least a name.
        args = vec![Vec::new()];
    }
    user_mode.after = match execute(call.thread, found, args, &env)? {
        Executed::Replaced => After::Replaced,
        Executed::Ended => After::Ended,
    };
    Ok(0)
}

/// `execve`: path, arguments, environment.
pub fn execve(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let [_, args, env, ..] = *call.args;
    let found = named_program(call, None, 0, 0)?;
    run(call, user_mode, found, args, env)
}

/// `execveat`: directory, path, arguments, environment, flags.
pub fn execveat(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let [_, _, args, env, flags, _] = *call.args;
    let found = named_program(call, Some(0), 1, flags)?;
    run(call, user_mode, found, args, env)
}
