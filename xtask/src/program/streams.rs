//! The three streams of a program between the machine and the host, byte by byte as they are.
//!
//! The emulator connects to three sockets in a folder of our own. Output is carried on as it comes; when its reader is slow, so
//! is the program, as with a pipe. Input is sent when the kernel asks for it, a frame at a time: a length byte and so many bytes,
//! or a zero at the end of the file (see `drivers::stdio` of the kernel). So nothing is read from standard input that the program
//! did not want, and on a terminal a line is a read.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context;

/// Most bytes of a frame.
const FRAME: usize = u8::MAX as usize;

/// Where a program's input comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Our own standard input, as it comes.
    Inherited,
    /// These bytes. A run puts them into the ramdisk, and nothing comes over the line.
    Bytes(Vec<u8>),
}

/// Most bytes of a file that travel in the ramdisk.
const SMALL: u64 = 64 << 20;

impl Input {
    /// Our own standard input: what is left of a file of no great size at once, so that it is read fast and a run with it is the
    /// same every time; anything else as it comes.
    ///
    /// # Errors
    /// When it is a file that cannot be read.
    fn inherited() -> io::Result<Self> {
        let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else {
            // Closed: nothing can be read.
            return Ok(Self::Bytes(Vec::new()));
        };
        let mut file = File::from(stdin);
        let about = file.metadata()?;
        let is_null = || fs::metadata("/dev/null").is_ok_and(|null| about.rdev() == null.rdev());
        if about.is_file() && about.len() <= SMALL {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Self::Bytes(bytes))
        } else if about.file_type().is_char_device() && is_null() {
            Ok(Self::Bytes(Vec::new()))
        } else {
            Ok(Self::Inherited)
        }
    }
}

/// Where a program's streams come from and go to.
pub struct Streams {
    /// Standard input.
    pub input: Input,
    /// Standard output.
    pub out: Box<dyn Write + Send>,
    /// Standard error.
    pub err: Box<dyn Write + Send>,
}

impl Streams {
    /// Our own.
    ///
    /// # Errors
    /// When an output is closed, or the input cannot be read.
    pub fn inherited() -> io::Result<Self> {
        // Unbuffered, and apart from what else is printed.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let err = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Ok(Self {
            input: Input::inherited()?,
            out: Box::new(out),
            err: Box::new(err),
        })
    }
}

/// Bytes that were written, for whoever looks at them afterwards.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What was written since the last call.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the emulator connects to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// The serial line for standard input.
    pub input: PathBuf,
    /// The port for standard output.
    pub out: PathBuf,
    /// The port for standard error.
    pub err: PathBuf,
}

impl Paths {
    fn all(&self) -> [&Path; 3] {
        [&self.input, &self.out, &self.err]
    }
}

/// Sockets that wait for the emulator.
#[derive(Debug)]
pub struct Sockets {
    folder: Folder,
    paths: Paths,
    listeners: [UnixListener; 3],
}

impl Sockets {
    /// Makes them.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written.
    pub fn listen() -> anyhow::Result<Self> {
        // Paths of sockets are short: 107 bytes on Linux. The folder of the run may lie too deep.
        let folder = Folder::make()?;
        let paths = Paths {
            input: folder.0.join("stdin"),
            out: folder.0.join("stdout"),
            err: folder.0.join("stderr"),
        };
        let listen = |path: &Path| {
            UnixListener::bind(path).with_context(|| format!("cannot make the socket {}", path.display()))
        };
        let listeners = [listen(&paths.input)?, listen(&paths.out)?, listen(&paths.err)?];
        Ok(Self {
            folder,
            paths,
            listeners,
        })
    }

    /// Where the emulator shall connect to.
    pub fn paths(&self) -> Paths {
        self.paths.clone()
    }

    /// Carries bytes as soon as the emulator is there.
    pub fn connect(self, streams: Streams) -> Connected {
        let broken = Broken::default();
        let [input, out, err] = self.listeners;
        // Not waited for in the end: it may stand in a read of a terminal.
        thread::spawn(move || serve_input(&input, streams.input));
        let threads = [(out, streams.out), (err, streams.err)].map(|(listener, sink)| {
            let broken = broken.clone();
            thread::spawn(move || carry(&listener, sink, &broken))
        });
        Connected {
            paths: self.paths,
            threads,
            broken,
            _folder: self.folder,
        }
    }
}

/// Streams that carry.
#[derive(Debug)]
pub struct Connected {
    paths: Paths,
    threads: [JoinHandle<()>; 2],
    broken: Broken,
    _folder: Folder,
}

impl Connected {
    /// To see whether an output cannot be written any more.
    pub fn broken(&self) -> Broken {
        self.broken.clone()
    }

    /// The emulator is gone: carries what is still under way. Returns why an output could not be written, if so.
    pub fn finish(self) -> Option<io::Error> {
        // An emulator that never came is replaced by somebody with nothing to say.
        for path in self.paths.all() {
            drop(UnixStream::connect(path));
        }
        for thread in self.threads {
            // It does not panic; what it carried is what counts.
            let _ = thread.join();
        }
        self.broken
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The error of an output that cannot be written any more.
#[derive(Clone, Debug, Default)]
pub struct Broken(Arc<Mutex<Option<io::Error>>>);

impl Broken {
    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn set(&self, error: io::Error) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }
}

/// A folder of our own for sockets, gone when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("faultline-{}-{number}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        // One that is there already is left by a process of the same number that was killed, or is somebody else's.
        let made = builder.mode(0o700).create(&path).or_else(|error| {
            fs::remove_dir_all(&path).map_err(|_| error)?;
            builder.create(&path)
        });
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is a few empty sockets.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Carries what the emulator sends to `sink`, to its end.
fn carry(listener: &UnixListener, mut sink: Box<dyn Write + Send>, broken: &Broken) {
    let Ok((mut from, _)) = listener.accept() else {
        return;
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if let Err(error) = sink.write_all(&buffer[..count]).and_then(|()| sink.flush()) {
                    return broken.set(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The emulator was killed.
            Err(_) => return,
        }
    }
}

/// Answers each request of the kernel with a frame.
fn serve_input(listener: &UnixListener, input: Input) {
    let Ok((line, _)) = listener.accept() else { return };
    let source: Box<dyn Read> = match input {
        Input::Bytes(bytes) => Box::new(Cursor::new(bytes)),
        Input::Inherited => match io::stdin().as_fd().try_clone_to_owned() {
            Ok(stdin) => Box::new(File::from(stdin)),
            // Closed: nothing can be read.
            Err(_) => Box::new(io::empty()),
        },
    };
    answer(line, source);
}

fn answer(mut line: impl Read + Write, mut source: impl Read) {
    let mut request = [0; 1];
    // The line ends with the emulator.
    while line.read_exact(&mut request).is_ok() {
        let mut frame = [0; 1 + FRAME];
        let count = loop {
            match source.read(&mut frame[1..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An input that cannot be read has ended, as for a program whose read fails.
                result => break result.unwrap_or(0),
            }
        };
        frame[0] = count as u8;
        if line.write_all(&frame[..=count]).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(input: &[u8], out: Box<dyn Write + Send>) -> (Paths, Connected) {
        let sockets = Sockets::listen().unwrap();
        let paths = sockets.paths();
        let streams = Streams {
            input: Input::Bytes(input.to_vec()),
            out,
            err: Box::new(io::sink()),
        };
        (paths, sockets.connect(streams))
    }

    #[test]
    fn output_arrives_whole_before_the_end() {
        let captured = Captured::default();
        let (paths, connected) = connect(&[], Box::new(captured.clone()));
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let mut machine = UnixStream::connect(&paths.out).unwrap();
        for piece in bytes.chunks(1001) {
            machine.write_all(piece).unwrap();
        }
        drop(machine);
        assert!(connected.finish().is_none());
        assert_eq!(captured.take(), bytes);
        assert!(!paths.out.exists(), "the folder is gone");
    }

    #[test]
    fn input_is_sent_when_it_is_asked_for_and_not_before() {
        let input: Vec<u8> = (0..700_u32).map(|n| n as u8).collect();
        let (paths, connected) = connect(&input, Box::new(io::sink()));
        let mut machine = UnixStream::connect(&paths.input).unwrap();
        machine.set_nonblocking(true).unwrap();
        thread::sleep(std::time::Duration::from_millis(20));
        let early = machine.read(&mut [0; 1]).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        machine.set_nonblocking(false).unwrap();
        let mut got = Vec::new();
        for length in [255, 255, 190, 0, 0] {
            machine.write_all(b"?").unwrap();
            let mut head = [0; 1];
            machine.read_exact(&mut head).unwrap();
            assert_eq!(head[0], length);
            let mut body = vec![0; usize::from(length)];
            machine.read_exact(&mut body).unwrap();
            got.extend(body);
        }
        assert_eq!(got, input);
        drop(machine);
        assert!(connected.finish().is_none());
    }

    #[test]
    fn an_emulator_that_never_comes_holds_nobody_up() {
        let (_, connected) = connect(&[], Box::new(io::sink()));
        assert!(connected.finish().is_none());
    }

    #[test]
    fn an_output_that_nobody_reads_is_told() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let (paths, connected) = connect(&[], Box::new(near));
        let mut machine = UnixStream::connect(&paths.out).unwrap();
        machine.write_all(b"x").unwrap();
        let broken = connected.broken();
        while !broken.is_set() {
            thread::yield_now();
        }
        let error = connected.finish().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
