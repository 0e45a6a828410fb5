//! Rules that all fills share (section 3.0): the order of their tests, the field, one area, ownership, who is woken.

use guest_tests::attempt::{outcome, read, write};
use guest_tests::job;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

/// A fill: its name, number, the words of its argument for a destination (without the field), unknown bits of its mode.
struct Command {
    name: &'static str,
    number: usize,
    words: fn(&Stage, usize, usize, u64) -> Vec<u64>,
    unknown: &'static [u64],
}

/// All five. MOVE has a source of its own, since it empties it.
const FILLS: [Command; 5] = [
    Command {
        name: "COPY",
        number: command::COPY,
        words: |stage, dst, len, mode| vec![dst as u64, stage.source.start as u64, len as u64, mode],
        unknown: &[4, 8, 1 << 63],
    },
    Command {
        name: "ZEROPAGE",
        number: command::ZEROPAGE,
        words: plain,
        unknown: &[2, 4, 1 << 63],
    },
    Command {
        name: "CONTINUE",
        number: command::CONTINUE,
        words: plain,
        unknown: &[4, 8, 1 << 63],
    },
    Command {
        name: "POISON",
        number: command::POISON,
        words: plain,
        unknown: &[2, 4, 1 << 63],
    },
    Command {
        name: "MOVE",
        number: command::MOVE,
        words: |stage, dst, len, mode| vec![dst as u64, stage.moved.start as u64, len as u64, mode],
        unknown: &[4, 8, 1 << 63],
    },
];

fn plain(_: &Stage, dst: usize, len: usize, mode: u64) -> Vec<u64> {
    vec![dst as u64, len as u64, mode]
}

impl Command {
    fn go(&self, stage: &Stage, dst: usize, len: usize, mode: u64) -> Fill {
        let mut words = (self.words)(stage, dst, len, mode);
        words.push(UNTOUCHED as u64);
        stage.uffd.fill(self.number, &mut words)
    }
}

/// Memory that the command at hand can fill, and what it fills from.
struct Stage {
    uffd: Uffd,
    dst: Region,
    source: Region,
    moved: Region,
}

impl Stage {
    /// Eight pages of the type that the command is for, registered.
    fn new(command: &Command, features: u64) -> Self {
        let uffd = Uffd::with(features);
        let source = Region::anon("source", 8);
        let moved = Region::anon("moved", 8);
        source.fill(0, 8, 0x5c);
        moved.fill(0, 8, 0x3d);
        let dst = if command.name == "CONTINUE" {
            let object = memfd(8);
            Region::shared("alias", object, 8).fill(0, 8, 0xca);
            Region::shared("dst", object, 8)
        } else {
            Region::anon("dst", 8)
        };
        uffd.watch(&dst, MISSING);
        Self {
            uffd,
            dst,
            source,
            moved,
        }
    }
}

pub fn run() {
    for command in &FILLS {
        arguments(command);
        field_not_writable(command);
        progress(command);
        wakes(command);
        areas(command);
        outstanding(command);
    }
    owners();
    protections();
}

fn arguments(command: &Command) {
    let stage = Stage::new(command, 0);
    let dst = stage.dst.start;
    let row = |what: &str, dst: usize, len: usize, mode: u64| {
        let got = command.go(&stage, dst, len, mode);
        check(
            &format!("3.0 {}: {what}", command.name),
            got,
            "EINVAL field untouched",
        );
    };
    row("start not aligned", dst + 8, PAGE, 0);
    row("length not aligned", dst, PAGE + 8, 0);
    row("length 0", dst, 0, 0);
    row("start at the end of user space", USER_END, PAGE, 0);
    row("start in the kernel", 0xffff_8000_0000_0000, PAGE, 0);
    row("end behind user space", USER_END - PAGE, 2 * PAGE, 0);
    row("length wraps", dst, usize::MAX - PAGE + 1, 0);
    for bit in command.unknown {
        row(&format!("unknown mode {bit:#x}"), dst, PAGE, *bit);
    }
    let unmapped = Region::hole("hole", PAGE).start;
    let mapped_nowhere = command.go(&stage, unmapped, PAGE, 0);
    check(
        &format!("3.0 {}: not mapped", command.name),
        mapped_nowhere,
        "ENOENT field -ENOENT",
    );
    let page_zero = command.go(&stage, 0, PAGE, 0);
    check(
        &format!("3.0 {}: page 0", command.name),
        page_zero,
        "ENOENT field -ENOENT",
    );
    check(
        &format!("3.0 {}: unreadable", command.name),
        ok(stage.uffd.ioctl(command.number, unmapped)),
        "EFAULT",
    );
}

/// The pages are there although the call fails.
fn field_not_writable(command: &Command) {
    let stage = Stage::new(command, 0);
    let argument = Region::anon("argument", 1);
    let words = (command.words)(&stage, stage.dst.start, PAGE, 0);
    let at = argument.end() - words.len() * 8;
    for (index, word) in words.iter().enumerate() {
        for (byte, value) in word.to_le_bytes().into_iter().enumerate() {
            poke(at + index * 8 + byte, value);
        }
    }
    check(
        &format!("3.0 {}: the field cannot be written", command.name),
        ok(stage.uffd.ioctl(command.number, at)),
        "EFAULT",
    );
    let want = match command.name {
        "COPY" => "0x5c",
        "ZEROPAGE" => "0x00",
        "CONTINUE" => "0xca",
        "POISON" => "SIGBUS code 2 at dst",
        _ => "0x3d",
    };
    check(
        &format!("3.0 {}: and yet the page is there", command.name),
        peek(stage.dst.start),
        want,
    );
}

/// What is done before a page that cannot be filled counts.
fn progress(command: &Command) {
    let stage = Stage::new(command, 0);
    check(
        &format!("3.0 {}: the third page", command.name),
        stage.uffd.zeropage(stage.dst.page(2), PAGE, 0).answer.is_err(),
        command.name == "CONTINUE",
    );
    if command.name == "CONTINUE" {
        check(
            "3.0 CONTINUE: the third page, continued",
            command.go(&stage, stage.dst.page(2), PAGE, 0),
            "ok 1p",
        );
    }
    let got = command.go(&stage, stage.dst.start, 4 * PAGE, 0);
    check(
        &format!("3.0 {}: four pages, the third is there", command.name),
        got,
        "EAGAIN field 2p",
    );
    if command.name != "MOVE" {
        let got = command.go(&stage, stage.dst.page(2), 2 * PAGE, 0);
        check(
            &format!("3.0 {}: the rest", command.name),
            got,
            "EEXIST field -EEXIST",
        );
        let got = command.go(&stage, stage.dst.page(3), 5 * PAGE, 0);
        check(
            &format!("3.0 {}: the others in one call", command.name),
            got,
            "ok 5p",
        );
    }
}

fn wakes(command: &Command) {
    let stage = Stage::new(command, 0);
    let name = |what: &str| format!("3.0 {}: {what}", command.name);
    if command.name == "CONTINUE" {
        // Nobody waits for a missing page that is cached; the other fills of this file show the rules.
        return continue_wakes();
    }
    let first = read(stage.dst.start);
    let second = read(stage.dst.page(1));
    check(&name("a waiter on the first page"), first.settle(), "blocked");
    check(&name("a waiter on the second"), second.settle(), "blocked");
    let done = match command.name {
        "COPY" => "0x5c",
        "ZEROPAGE" => "0x00",
        "POISON" => "SIGBUS code 2 at dst",
        _ => "0x3d",
    };
    check(
        &name("fill of the first, DONTWAKE"),
        command.go(&stage, stage.dst.start, PAGE, DONTWAKE),
        "ok 1p",
    );
    check(&name("the waiter sleeps on"), first.settle(), "blocked");
    check(
        &name("fill again"),
        command.go(&stage, stage.dst.start, PAGE, 0),
        "EEXIST field -EEXIST",
    );
    check(&name("EEXIST wakes nobody"), first.settle(), "blocked");
    check(&name("WAKE"), ok(stage.uffd.wake(stage.dst.start, PAGE)), "ok");
    check(&name("the first waiter"), first.finish(), done);
    check(&name("the second is not concerned"), second.settle(), "blocked");
    // A waiter behind the page that stops a fill stays asleep.
    let third = read(stage.dst.page(3));
    check(&name("a waiter on the fourth page"), third.settle(), "blocked");
    stage.uffd.zeropage(stage.dst.page(2), PAGE, 0);
    let mut words = (command.words)(&stage, stage.dst.page(1), 3 * PAGE, 0);
    if command.name == "MOVE" {
        words[1] = stage.moved.page(1) as u64;
    }
    words.push(UNTOUCHED as u64);
    check(
        &name("three pages, the second is there"),
        stage.uffd.fill(command.number, &mut words),
        "EAGAIN field 1p",
    );
    check(
        &name("the waiter on the first of them"),
        second.finish(),
        done.replace("dst", "dst+0x1000"),
    );
    check(&name("the waiter on the last"), third.settle(), "blocked");
}

/// The same for pages that are cached.
fn continue_wakes() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    Region::shared("alias", object, 4).fill(0, 4, 0xca);
    let dst = Region::shared("dst", object, 4);
    uffd.watch(&dst, MINOR);
    let first = read(dst.start);
    let second = write(dst.page(1), 1);
    check(
        "3.0 CONTINUE: a waiter on the first page",
        outcome(&uffd, &first),
        "fault flags 4 at dst",
    );
    check(
        "3.0 CONTINUE: a waiter on the second",
        outcome(&uffd, &second),
        "fault flags 5 at dst+0x1000",
    );
    check(
        "3.0 CONTINUE: the first, DONTWAKE",
        uffd.cont(dst.start, PAGE, DONTWAKE),
        "ok 1p",
    );
    check("3.0 CONTINUE: the waiter sleeps on", first.settle(), "blocked");
    check(
        "3.0 CONTINUE: again",
        uffd.cont(dst.start, PAGE, 0),
        "EEXIST field -EEXIST",
    );
    check("3.0 CONTINUE: EEXIST wakes nobody", first.settle(), "blocked");
    check("3.0 CONTINUE: WAKE", ok(uffd.wake(dst.start, PAGE)), "ok");
    check("3.0 CONTINUE: the first waiter", first.finish(), "0xca");
    check(
        "3.0 CONTINUE: the second is not concerned",
        second.settle(),
        "blocked",
    );
    check(
        "3.0 CONTINUE: the second",
        uffd.cont(dst.page(1), PAGE, 0),
        "ok 1p",
    );
    check("3.0 CONTINUE: the second waiter", second.finish(), "written");
}

/// The destination lies in one registered area.
fn areas(command: &Command) {
    let name = |what: &str| format!("3.0 {}: {what}", command.name);
    let stage = Stage::new(command, 0);
    stage
        .uffd
        .unregister(stage.dst.page(4), 4 * PAGE)
        .expect("it is registered");
    check(
        &name("not registered"),
        command.go(&stage, stage.dst.page(4), PAGE, 0),
        crosses(command),
    );
    check(
        &name("across the end of the registration"),
        command.go(&stage, stage.dst.page(3), 2 * PAGE, 0),
        crosses(command),
    );
    check(&name("nothing is done"), page(stage.dst.page(3)), "empty");
    // Areas merge only where neither has met a fill before: a new pair.
    let stage = Stage::new(command, 0);
    stage
        .uffd
        .unregister(stage.dst.page(4), 4 * PAGE)
        .expect("it is registered");
    stage
        .uffd
        .register(stage.dst.page(4), 4 * PAGE, MISSING)
        .expect("it is free");
    check(
        &name("across two equal registrations"),
        command.go(&stage, stage.dst.page(3), 2 * PAGE, 0),
        "ok 2p",
    );
    mprotect(stage.dst.page(6), 2 * PAGE, libc::PROT_READ).expect("mprotect works");
    check(
        &name("across a change of protection"),
        command.go(&stage, stage.dst.page(5), 2 * PAGE, 0),
        crosses(command),
    );
    let other = Uffd::with(0);
    stage
        .uffd
        .unregister(stage.dst.page(2), PAGE)
        .expect("it is registered");
    other
        .register(stage.dst.page(2), PAGE, MISSING)
        .expect("it is free");
    check(
        &name("across two descriptors"),
        command.go(&stage, stage.dst.page(1), 2 * PAGE, 0),
        crosses(command),
    );
    call(libc::SYS_munmap, &[stage.dst.page(1), PAGE]).expect("munmap works");
    check(
        &name("into a hole"),
        command.go(&stage, stage.dst.start, 2 * PAGE, 0),
        crosses(command),
    );
}

/// MOVE looks at its two areas in its own order.
fn crosses(command: &Command) -> &'static str {
    if command.name == "MOVE" {
        "EINVAL field -EINVAL"
    } else {
        "ENOENT field -ENOENT"
    }
}

/// A change of the layout that nobody has read about stands in front of everything.
fn outstanding(command: &Command) {
    let stage = Stage::new(command, feature::EVENT_REMOVE);
    let other = Region::anon("other", 2);
    stage.uffd.watch(&other, MISSING);
    let waiter = job::start(move || ok(other.advise(libc::MADV_DONTNEED)));
    let name = |what: &str| format!("3.0 {}: event outstanding: {what}", command.name);
    check(&name("its cause"), waiter.settle(), "blocked (D)");
    check(
        &name("good argument"),
        command.go(&stage, stage.dst.start, PAGE, 0),
        "EAGAIN field -EAGAIN",
    );
    check(
        &name("bad argument"),
        command.go(&stage, 1, 1, 1 << 40),
        "EAGAIN field -EAGAIN",
    );
    check(&name("NULL"), ok(stage.uffd.ioctl(command.number, 0)), "EFAULT");
    check(&name("nothing is done"), page(stage.dst.start), "empty");
    check(
        &name("REGISTER"),
        ok(stage.uffd.register(stage.dst.start, PAGE, MISSING)),
        "ok",
    );
    check(&name("WAKE"), ok(stage.uffd.wake(stage.dst.start, PAGE)), "ok");
    check(
        &name("UNREGISTER"),
        ok(stage.uffd.unregister(stage.dst.page(7), PAGE)),
        "ok",
    );
    check(
        &name("the message"),
        stage.uffd.told(),
        "remove other to other+0x2000",
    );
    check(&name("its cause goes on"), waiter.finish(), "ok");
    check(
        &name("the same command afterwards"),
        command.go(&stage, stage.dst.start, PAGE, 0),
        "ok 1p",
    );
}

/// Another descriptor of the process may fill.
fn owners() {
    let owner = Uffd::with(0);
    let other = Uffd::with(0);
    let memory = Region::anon("memory", 6);
    let source = Region::filled("source", 1, 0x5c);
    owner.watch(&memory, MISSING | WP);
    let waiter = read(memory.start);
    check(
        "3.0 not the owner: a waiter",
        outcome(&owner, &waiter),
        "fault flags 0 at memory",
    );
    check(
        "3.0 not the owner: COPY",
        other.copy(memory.start, source.start, PAGE, 0),
        "ok 1p",
    );
    check(
        "3.0 not the owner: its wake does not reach",
        waiter.settle(),
        "blocked",
    );
    check(
        "3.0 not the owner: neither does its WAKE",
        ok(other.wake(memory.start, PAGE)),
        "ok",
    );
    check("3.0 not the owner: the waiter", waiter.settle(), "blocked");
    check("3.0 the owner's WAKE", ok(owner.wake(memory.start, PAGE)), "ok");
    check("3.0 the owner's WAKE reaches", waiter.finish(), "0x5c");
    check(
        "3.0 not the owner: ZEROPAGE",
        other.zeropage(memory.page(1), PAGE, 0),
        "ok 1p",
    );
    check(
        "3.0 not the owner: POISON",
        other.poison(memory.page(2), PAGE, 0),
        "ok 1p",
    );
    check(
        "3.0 not the owner: WRITEPROTECT",
        ok(other.writeprotect(memory.start, PAGE, PROTECT)),
        "ok",
    );
    check(
        "3.0 not the owner: COPY with WP",
        other.copy(memory.page(3), source.start, PAGE, FILL_WP),
        "ok 1p",
    );
    check(
        "3.0 not the owner: its protection traps for the owner",
        outcome(&owner, &write(memory.start, 1)),
        "fault flags 3 at memory",
    );
    check(
        "3.0 not the owner: MOVE",
        other.move_pages(memory.page(4), source.start, PAGE, 0),
        "EINVAL field -EINVAL",
    );
    let object = memfd(2);
    Region::shared("alias", object, 2).fill(0, 2, 0x66);
    let shared = Region::shared("shared", object, 2);
    owner.watch(&shared, MISSING);
    check(
        "3.0 CONTINUE where only MISSING is registered",
        owner.cont(shared.start, PAGE, 0),
        "ok 1p",
    );
    check(
        "3.0 CONTINUE by another descriptor",
        other.cont(shared.page(1), PAGE, 0),
        "ok 1p",
    );
    let never = Region::anon("never", 1);
    check(
        "3.0 COPY where nothing is registered",
        owner.copy(never.start, source.start, PAGE, 0),
        "ENOENT field -ENOENT",
    );
}

/// The protection of the area does not matter.
fn protections() {
    for (name, prot) in [("PROT_READ", libc::PROT_READ), ("PROT_NONE", libc::PROT_NONE)] {
        let uffd = Uffd::with(0);
        let source = Region::filled("source", 1, 0x5c);
        let memory = Region::map("memory", 3 * PAGE, prot, ANON, -1, 0).expect("memory can be mapped");
        uffd.watch(&memory, MISSING);
        check(
            &format!("3.0 COPY into {name}"),
            uffd.copy(memory.start, source.start, PAGE, 0),
            "ok 1p",
        );
        check(
            &format!("3.0 ZEROPAGE into {name}"),
            uffd.zeropage(memory.page(1), PAGE, 0),
            "ok 1p",
        );
        check(
            &format!("3.0 POISON into {name}"),
            uffd.poison(memory.page(2), PAGE, 0),
            "ok 1p",
        );
        mprotect(memory.start, memory.len, RW).expect("mprotect works");
        check(
            &format!("3.0 {name} opened: the copy"),
            peek(memory.start),
            "0x5c",
        );
        check(
            &format!("3.0 {name} opened: a write to it"),
            poke(memory.start, 1),
            "written",
        );
        check(&format!("3.0 {name} opened: zeros"), peek(memory.page(1)), "0x00");
        check(
            &format!("3.0 {name} opened: poison"),
            peek(memory.page(2)),
            "SIGBUS code 2 at memory+0x2000",
        );
    }
}
