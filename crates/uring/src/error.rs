//! Why a reactor cannot be set up, each in one line that says what to do about it.

use std::io;

/// Why [`Reactor::new`](crate::Reactor::new) failed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(
        "this kernel was built without io_uring; run a Linux kernel of 6.1 or later with \
         CONFIG_IO_URING=y"
    )]
    Absent,
    #[error(
        "io_uring is forbidden here; set `sysctl kernel.io_uring_disabled=0`, or, in a container, \
         use a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden,
    #[error("this kernel's io_uring is too old ({lacks} is missing); run Linux 6.1 or later")]
    TooOld { lacks: &'static str },
    #[error(
        "the limit of locked memory is too low: {bytes} bytes for {what} were refused; raise it \
         with `ulimit -l unlimited` or, under systemd, `LimitMEMLOCK=infinity` (the limit counts \
         all processes of the user together)"
    )]
    MemlockTooLow { what: &'static str, bytes: usize },
    #[error(
        "no file descriptor is left for the ring; raise the limit with `ulimit -n 65536` or, under \
         systemd, `LimitNOFILE=65536`"
    )]
    NoDescriptor,
    #[error("bad reactor configuration: {0}")]
    Config(&'static str),
    #[error("cannot {action}: {source}")]
    Other { action: &'static str, source: io::Error },
}

/// A step of the setup, for the text of its failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) action: &'static str,
    /// What the step locks in memory, if anything.
    pub(crate) what: &'static str,
    pub(crate) bytes: usize,
    /// What a kernel that answers EINVAL is missing.
    pub(crate) needs: &'static str,
}

impl Step {
    pub(crate) fn failed(self, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => SetupError::Absent,
            Some(libc::EPERM | libc::EACCES) => SetupError::Forbidden,
            Some(libc::ENOMEM) => SetupError::MemlockTooLow { what: self.what, bytes: self.bytes },
            Some(libc::EMFILE | libc::ENFILE) => SetupError::NoDescriptor,
            Some(libc::EINVAL) => SetupError::TooOld { lacks: self.needs },
            _ => SetupError::Other { action: self.action, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let step = Step {
            action: "register the disk buffers",
            what: "registered disk buffers",
            bytes: 2 << 20,
            needs: "IORING_REGISTER_BUFFERS",
        };
        for (errno, says) in [
            (libc::ENOSYS, "CONFIG_IO_URING=y"),
            (libc::EPERM, "kernel.io_uring_disabled=0"),
            (libc::ENOMEM, "2097152 bytes for registered disk buffers"),
            (libc::ENOMEM, "ulimit -l unlimited"),
            (libc::ENOMEM, "LimitMEMLOCK=infinity"),
            (libc::EMFILE, "LimitNOFILE"),
            (libc::EINVAL, "IORING_REGISTER_BUFFERS is missing"),
            (libc::EIO, "cannot register the disk buffers"),
        ] {
            let text = step.failed(io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(says), "{errno}: {text}");
            assert!(!text.contains('\n') && !text.contains("  "), "one line: {text}");
        }
    }
}
