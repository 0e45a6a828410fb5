//! What comes from the system's package manager: emulators and firmware.
//!
//! Four families are known; each tool is looked for first, in the places where any of them puts it.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use super::Step;
use crate::process::{CommandLine, which};

/// A program or file that a package provides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    /// QEMU for x86.
    Qemu,
    /// `qemu-img`, to read a snapshot through one of QEMU's URLs.
    QemuImg,
    /// UEFI firmware for QEMU.
    Ovmf,
    /// Bochs with its SDL display and its ROM images.
    Bochs,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "QEMU (qemu-system-x86_64)",
            Self::QemuImg => "qemu-img",
            Self::Ovmf => "the UEFI firmware OVMF",
            Self::Bochs => "Bochs with its ROM images",
        })
    }
}

impl Tool {
    /// Whether it is installed.
    pub fn is_present(self) -> bool {
        match self {
            Self::Qemu => which("qemu-system-x86_64").is_some(),
            Self::QemuImg => which("qemu-img").is_some(),
            Self::Ovmf => firmware().is_some(),
            Self::Bochs => which("bochs").is_some() && bochs_roms().is_some() && has_sdl_display(),
        }
    }

    const fn packages(self, manager: Manager) -> &'static [&'static str] {
        match (self, manager) {
            (Self::Qemu, Manager::Apt) => &["qemu-system-x86"],
            (Self::Qemu, Manager::Dnf) => &["qemu-system-x86-core"],
            (Self::Qemu, Manager::Pacman) => &["qemu-system-x86"],
            (Self::Qemu | Self::QemuImg | Self::Ovmf, Manager::Brew) => &["qemu"],
            (Self::QemuImg, Manager::Apt) => &["qemu-utils"],
            (Self::QemuImg, Manager::Dnf | Manager::Pacman) => &["qemu-img"],
            (Self::Ovmf, Manager::Apt) => &["ovmf"],
            (Self::Ovmf, Manager::Dnf | Manager::Pacman) => &["edk2-ovmf"],
            (Self::Bochs, Manager::Apt) => &["bochs", "bochs-sdl", "bochsbios", "vgabios"],
            (Self::Bochs, Manager::Dnf | Manager::Pacman | Manager::Brew) => &["bochs"],
        }
    }
}

/// UEFI firmware as QEMU takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// Code and variables in one file, for `-bios`.
    Whole(PathBuf),
    /// Code alone, for a read-only flash drive.
    Code(PathBuf),
}

/// The UEFI firmware, wherever a distribution has put it.
pub fn firmware() -> Option<Firmware> {
    let whole = [
        "/usr/share/ovmf/OVMF.fd",
        "/usr/share/edk2/x64/OVMF.4m.fd",
        "/usr/share/edk2-ovmf/x64/OVMF.fd",
    ];
    let code = [
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/opt/homebrew/share/qemu/edk2-x86_64-code.fd",
        "/usr/local/share/qemu/edk2-x86_64-code.fd",
    ];
    let first = |paths: &[&str]| paths.iter().map(PathBuf::from).find(|path| path.is_file());
    first(&whole)
        .map(Firmware::Whole)
        .or_else(|| first(&code).map(Firmware::Code))
}

/// The BIOS and VGA BIOS images of Bochs.
pub fn bochs_roms() -> Option<(PathBuf, PathBuf)> {
    let folders = [
        "/usr/share/bochs",
        "/usr/local/share/bochs",
        "/opt/homebrew/share/bochs",
    ];
    let vga = [
        "VGABIOS-lgpl-latest",
        "VGABIOS-lgpl-latest.bin",
        "VGABIOS-lgpl-latest-cirrus",
    ];
    folders.iter().map(PathBuf::from).find_map(|folder| {
        let bios = folder.join("BIOS-bochs-latest");
        let vga = vga
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file())?;
        bios.is_file().then_some((bios, vga))
    })
}

/// Debian packs the display library apart from Bochs; elsewhere it comes with it.
fn has_sdl_display() -> bool {
    let plugin_folders = [
        "/usr/lib/bochs/plugins",
        "/usr/lib/x86_64-linux-gnu/bochs/plugins",
    ];
    let split = plugin_folders
        .iter()
        .map(PathBuf::from)
        .find(|folder| folder.is_dir());
    split.is_none_or(|folder| {
        folder.join("libbx_sdl2_gui.so").is_file() || folder.join("libbx_sdl2.so").is_file()
    })
}

/// A package manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manager {
    /// Debian, Ubuntu.
    Apt,
    /// Fedora.
    Dnf,
    /// Arch.
    Pacman,
    /// Homebrew.
    Brew,
}

impl Manager {
    /// All of them, in the order they are looked for.
    pub const ALL: [Self; 4] = [Self::Apt, Self::Dnf, Self::Pacman, Self::Brew];

    /// The one of this system.
    pub fn detect() -> Option<Self> {
        Self::detect_with(|program| which(program).is_some())
    }

    fn detect_with(has: impl Fn(&str) -> bool) -> Option<Self> {
        Self::ALL.into_iter().find(|manager| has(manager.program()))
    }

    /// Its program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
            Self::Brew => "brew",
        }
    }

    /// The step that installs `tools`.
    pub fn step(self, tools: &[Tool], privilege: Privilege) -> Step {
        let mut names: Vec<&str> = Vec::new();
        for name in tools.iter().flat_map(|tool| tool.packages(self)) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let (verb, refresh): (&[&str], Option<&[&str]>) = match self {
            Self::Apt => (&["install", "-y"], Some(&["update"])),
            Self::Dnf => (&["install", "-y"], None),
            Self::Pacman => (&["-S", "--needed", "--noconfirm"], Some(&["-Sy"])),
            Self::Brew => (&["install"], None),
        };
        let program = self.as_root(privilege);
        let command = program.clone().args(verb).args(names);
        let shown = command.to_string();
        // Only what is run is told to ask nothing; a person types the command without it.
        let command = if self == Self::Apt {
            command.var("DEBIAN_FRONTEND", "noninteractive")
        } else {
            command
        };
        Step {
            shown,
            command,
            refresh: refresh.map(|args| program.args(args)),
        }
    }

    fn as_root(self, privilege: Privilege) -> CommandLine {
        match privilege {
            // Homebrew refuses to run as root.
            _ if self == Self::Brew => CommandLine::new(self.program()),
            Privilege::Root => CommandLine::new(self.program()),
            Privilege::Sudo => CommandLine::new("sudo").arg(self.program()),
        }
    }
}

/// How packages can be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// We are root.
    Root,
    /// Through sudo.
    Sudo,
}

impl Privilege {
    /// From who we are.
    pub const fn detect(root: bool) -> Self {
        if root { Self::Root } else { Self::Sudo }
    }
}

/// Whether we are root.
pub fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: [Tool; 4] = [Tool::Qemu, Tool::QemuImg, Tool::Ovmf, Tool::Bochs];

    #[test]
    fn every_manager_has_its_command() {
        let shown = |manager: Manager| manager.step(&TOOLS, Privilege::Sudo).shown;
        assert_eq!(
            shown(Manager::Apt),
            "sudo apt-get install -y qemu-system-x86 qemu-utils ovmf bochs bochs-sdl bochsbios vgabios"
        );
        assert_eq!(
            shown(Manager::Dnf),
            "sudo dnf install -y qemu-system-x86-core qemu-img edk2-ovmf bochs"
        );
        assert_eq!(
            shown(Manager::Pacman),
            "sudo pacman -S --needed --noconfirm qemu-system-x86 qemu-img edk2-ovmf bochs"
        );
        assert_eq!(shown(Manager::Brew), "brew install qemu bochs");
    }

    #[test]
    fn root_needs_no_sudo() {
        assert_eq!(
            Manager::Dnf.step(&[Tool::Ovmf], Privilege::Root).shown,
            "dnf install -y edk2-ovmf"
        );
    }

    #[test]
    fn the_system_is_known_by_its_program() {
        for manager in Manager::ALL {
            assert_eq!(
                Manager::detect_with(|program| program == manager.program()),
                Some(manager)
            );
        }
        assert_eq!(Manager::detect_with(|_| false), None);
    }

    #[test]
    fn package_lists_that_grow_old_are_refreshed() {
        let refresh = |manager: Manager| {
            manager
                .step(&[Tool::Qemu], Privilege::Root)
                .refresh
                .map(|line| line.to_string())
        };
        assert_eq!(refresh(Manager::Apt).as_deref(), Some("apt-get update"));
        assert_eq!(refresh(Manager::Dnf), None);
    }
}
