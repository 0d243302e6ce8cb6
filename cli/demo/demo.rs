//! The program that `duet demo` runs: a little of everything, to show which calls reach Duet.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        println!("  a child, process {}, started from /proc/self/exe", std::process::id());
        return Ok(());
    }
    println!("  hello from process {}, user {}", std::process::id(), fs::metadata("/proc/self")?.uid());
    fs::create_dir_all("/tmp/demo/dir")?;
    let mut file = fs::File::create("/tmp/demo/file")?;
    for i in 0..100 {
        writeln!(file, "line {i}")?;
    }
    fs::set_permissions("/tmp/demo/file", fs::Permissions::from_mode(0o640))?;
    chown("/tmp/demo/file", Some(1000), Some(100))?;
    symlink("file", "/tmp/demo/link")?;
    fs::rename("/tmp/demo/file", "/tmp/demo/dir/file")?;
    symlink("dir/file", "/tmp/demo/again")?;
    let meta = fs::metadata("/tmp/demo/again")?;
    println!(
        "  wrote {} bytes: mode {:o}, owner {}:{}, kept by Duet",
        meta.len(),
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid()
    );
    let mut names: Vec<String> = fs::read_dir("/")?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    println!("  all there is: {}", names.join(" "));
    let worker = std::thread::spawn(|| (0..1_000_000u64).sum::<u64>());
    let mut status = String::new();
    fs::File::open("/proc/self/status")?.read_to_string(&mut status)?;
    let threads = status.lines().find(|l| l.starts_with("Threads:")).unwrap_or("Threads: ?");
    println!("  {}; one of them computed {}", threads.replace('\t', " "), worker.join().unwrap_or(0));
    match fs::read_to_string("/etc/passwd") {
        Ok(_) => println!("  read the host's /etc/passwd!"),
        Err(e) => println!("  the host's /etc/passwd: {e}"),
    }
    let status = Command::new("/proc/self/exe").arg("child").status()?;
    println!("  the child ended with {status}");
    Ok(())
}
