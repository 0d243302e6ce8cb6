//! A call as C declares it.

use super::{Arg, Dir, Ret, Row, Set, Struct, Type};

impl Row {
    /// Its declaration in C, as `ssize_t read(int fd, void *buf, size_t count);`. Types are the kernel's
    /// for x86-64 where the C library has no function of the name.
    pub fn prototype(&self) -> String {
        let ret = match self.ret {
            Ret::Zero | Ret::Fd | Ret::Count => "int ",
            Ret::Bytes => "ssize_t ",
            Ret::Value => "long ",
            Ret::Pid => "pid_t ",
            Ret::Uid => "uid_t ",
            Ret::Gid => "gid_t ",
            Ret::Addr => "void *",
            Ret::Mode => "mode_t ",
            Ret::Never => "_Noreturn void ",
        };
        let args: Vec<String> = self.args.iter().map(argument).collect();
        let args = match args.is_empty() {
            true => "void".to_owned(),
            false => args.join(", "),
        };
        format!("{ret}{}({args});", self.name)
    }
}

fn argument(arg: &Arg) -> String {
    let name = arg.name;
    let ty = match arg.ty {
        Type::Fd | Type::DirFd | Type::Int | Type::Signal => "int",
        Type::Path | Type::Str => return format!("const char *{name}"),
        Type::StrArray => return format!("char *const {name}[]"),
        Type::UInt => "unsigned int",
        Type::Long => "long",
        Type::ULong | Type::Word => "unsigned long",
        Type::Flags(set) | Type::One(set) => constant(set),
        Type::Ptr { to, dir, .. } => return pointer(name, to, dir),
        Type::Size => "size_t",
        Type::Offset => "off_t",
        Type::Pid => "pid_t",
        Type::Uid => "uid_t",
        Type::Gid => "gid_t",
        Type::Mode => "mode_t",
        Type::Dev => "dev_t",
        Type::Addr => return format!("void *{name}"),
    };
    format!("{ty} {name}")
}

fn constant(set: Set) -> &'static str {
    match set {
        Set::CLONE
        | Set::IOCTL
        | Set::KEXEC
        | Set::KEXECFILE
        | Set::MOUNT
        | Set::MPOLF
        | Set::PERF
        | Set::PERSONALITY => "unsigned long",
        Set::CLOSERANGE
        | Set::FUTEX2
        | Set::GRND
        | Set::LANDLOCK
        | Set::MFD
        | Set::PIDFD
        | Set::RENAME
        | Set::SECCOMPFLAG
        | Set::SECCOMPOP
        | Set::SPLICE
        | Set::STATX
        | Set::SYNCRANGE => "unsigned int",
        Set::CLOCK => "clockid_t",
        Set::PIDTYPE => "idtype_t",
        Set::FANEVENT => "uint64_t",
        _ => "int",
    }
}

fn pointer(name: &str, to: Struct, dir: Dir) -> String {
    let constant = if dir == Dir::In { "const " } else { "" };
    match to.name().strip_suffix("[2]") {
        Some(element) => format!("{constant}{element} {name}[2]"),
        None => {
            let target = match to {
                Struct::Bytes | Struct::SigsetArg => "void",
                Struct::NodeMask => "unsigned long",
                _ => to.name(),
            };
            let space = if target.ends_with('*') { "" } else { " " };
            format!("{constant}{target}{space}*{name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::table::by_name;

    #[test]
    fn prototypes_are_cs() {
        let of = |name| by_name(name).unwrap().prototype();
        assert_eq!(of("read"), "ssize_t read(int fd, void *buf, size_t count);");
        assert_eq!(of("getpid"), "pid_t getpid(void);");
        assert_eq!(
            of("openat"),
            "int openat(int dirfd, const char *path, int flags, mode_t mode);"
        );
        assert_eq!(
            of("execve"),
            "int execve(const char *path, char *const argv[], char *const envp[]);"
        );
        assert_eq!(of("pipe"), "int pipe(int pipefd[2]);");
        assert_eq!(
            of("connect"),
            "int connect(int sockfd, const struct sockaddr *addr, size_t addrlen);"
        );
    }
}
