//! Model-specific registers of a guest: those that are part of its state, and a few that only answer.
//!
//! Everything else is a general protection fault of the guest, as on a CPU that does not have the register.

use crate::state::SystemState;

/// IA32_EFER.
const EFER: u32 = 0xc000_0080;
/// Bits of EFER that a guest may change: SYSCALL and no-execute. LME and LMA are set and stay.
const EFER_WRITABLE: u64 = 1 | 1 << 11;

/// A register that the guest does not have, or a value that it cannot take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// RDMSR.
///
/// # Errors
/// There is no such register here.
pub fn read(state: &SystemState, number: u32, ticks: u64) -> Result<u64, Refused> {
    Ok(match number {
        // The TSC.
        0x10 => ticks,
        // Microcode revision, memory-type ranges, misc enable, debug control: nothing there, nothing on.
        0x8b | 0xfe | 0x2ff | 0x1a0 | 0x1d9 => 0,
        0x174 => state.sysenter_cs,
        0x175 => state.sysenter_esp,
        0x176 => state.sysenter_eip,
        0x277 => state.pat,
        EFER => state.efer,
        0xc000_0081 => state.star,
        0xc000_0082 => state.lstar,
        0xc000_0083 => state.cstar,
        0xc000_0084 => state.sfmask,
        0xc000_0100 => state.fs.base,
        0xc000_0101 => state.gs.base,
        0xc000_0102 => state.kernel_gs_base,
        _ => return Err(Refused),
    })
}

/// WRMSR.
///
/// # Errors
/// There is no such register here, or it cannot hold the value.
pub fn write(state: &mut SystemState, number: u32, value: u64) -> Result<(), Refused> {
    let address = is_canonical(value).then_some(value).ok_or(Refused);
    match number {
        0x8b => {}
        0x1a0 | 0x1d9 if value == 0 => {}
        0x174 => state.sysenter_cs = value & 0xffff_ffff,
        0x175 => state.sysenter_esp = address?,
        0x176 => state.sysenter_eip = address?,
        0x277 if is_pat(value) => state.pat = value,
        EFER if (value ^ state.efer) & !EFER_WRITABLE == 0 => state.efer = value,
        0xc000_0081 => state.star = value,
        0xc000_0082 => state.lstar = address?,
        0xc000_0083 => state.cstar = address?,
        0xc000_0084 => state.sfmask = value & 0xffff_ffff,
        0xc000_0100 => state.fs.base = address?,
        0xc000_0101 => state.gs.base = address?,
        0xc000_0102 => state.kernel_gs_base = address?,
        _ => return Err(Refused),
    }
    Ok(())
}

fn is_canonical(address: u64) -> bool {
    let high = (address as i64) >> 47;
    high == 0 || high == -1
}

/// Whether every entry is a memory type: 0, 1, 4 to 7.
fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|entry| matches!(entry, 0 | 1 | 4..=7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut state = SystemState::long_mode(0x1000);
        let addresses = [
            0xc000_0100,
            0xc000_0101,
            0xc000_0102,
            0xc000_0082,
            0xc000_0083,
            0x175,
            0x176,
        ];
        for number in addresses {
            write(&mut state, number, 0xffff_8000_0000_0000 | u64::from(number)).expect("it has these");
        }
        for number in addresses {
            assert_eq!(
                read(&state, number, 0),
                Ok(0xffff_8000_0000_0000 | u64::from(number))
            );
        }
        assert_eq!(read(&state, 0x10, 77), Ok(77));
    }

    #[test]
    fn impossible_values_are_refused_and_change_nothing() {
        let mut state = SystemState::long_mode(0x1000);
        let before = state;
        for (number, value) in [
            (0xc000_0101, 0x8000_0000_0000),
            (0x277, 0x0202_0202_0202_0202),
            (EFER, 0),
            (EFER, before.efer | 1 << 12),
            (0x1b, 0),
            (0x3a, 1),
            (0xc001_0114, 0),
        ] {
            assert_eq!(write(&mut state, number, value), Err(Refused), "{number:#x}");
        }
        assert_eq!(state, before);
        assert_eq!(read(&state, 0xc001_0117, 0), Err(Refused));
    }

    #[test]
    fn a_guest_turns_system_calls_on() {
        let mut state = SystemState::long_mode(0x1000);
        let value = state.efer | 1;
        write(&mut state, EFER, value).expect("it may");
        assert_eq!(read(&state, EFER, 0), Ok(value));
    }
}
