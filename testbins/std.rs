//! The Rust standard library in a layer: files, directories, threads, child processes, sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("child") {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input)?;
        println!("child got {:?} and {:?}", args[2], input.trim());
        println!("variable {:?}", std::env::var("FROM_PARENT"));
        std::process::exit(7);
    }
    fs::create_dir("std-rs")?;
    std::env::set_current_dir("std-rs")?;

    fs::create_dir_all("a/b/c")?;
    fs::write("a/b/c/file", "one\ntwo\nthree\n")?;
    fs::copy("a/b/c/file", "copy")?;
    fs::rename("copy", "moved")?;
    fs::hard_link("moved", "linked")?;
    symlink("a/b", "link")?;
    println!("canonical ends in {:?}", fs::canonicalize("link/c/file")?.strip_prefix(std::env::current_dir()?));
    let meta = fs::metadata("moved")?;
    println!("len {} links {} mode {:o}", meta.len(), meta.nlink(), meta.mode());
    fs::set_permissions("moved", fs::Permissions::from_mode(0o600))?;
    println!("mode {:o}", fs::metadata("linked")?.mode());
    let mut file = fs::OpenOptions::new().read(true).append(true).open("moved")?;
    writeln!(file, "four")?;
    file.seek(SeekFrom::Start(4))?;
    println!("{:?}", BufReader::new(&file).lines().collect::<Result<Vec<_>, _>>()?);
    println!("missing: {:?}", fs::read("missing").map_err(|e| e.kind()));
    println!("exists: {:?}", fs::create_dir("a").map_err(|e| e.kind()));
    let mut names: Vec<_> = fs::read_dir(".")?.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    println!("{names:?}");
    fs::remove_dir_all("a")?;
    println!("{:?}", fs::symlink_metadata("link").map(|m| m.is_symlink()));

    let (send, receive) = mpsc::channel();
    let workers: Vec<_> = (0..16u64)
        .map(|i| {
            let send = send.clone();
            thread::spawn(move || {
                let name = format!("worker-{i}");
                fs::write(&name, i.to_string()).unwrap();
                send.send((i, fs::read_to_string(&name).unwrap())).unwrap();
                fs::remove_file(&name).unwrap();
            })
        })
        .collect();
    drop(send);
    println!("{:?}", receive.iter().collect::<BTreeMap<_, _>>());
    workers.into_iter().for_each(|w| w.join().unwrap());

    let me = std::env::current_exe()?;
    let mut child = Command::new(&me)
        .args(["child", "argument"])
        .env_clear()
        .env("FROM_PARENT", "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().unwrap().write_all(b"through a pipe\n")?;
    let output = child.wait_with_output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", output.status);
    println!("no such program: {:?}", Command::new("./none").spawn().map(|_| ()).map_err(|e| e.kind()));
    let many: Vec<_> = (0..20)
        .map(|_| Command::new(&me).args(["child", "x"]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    println!("{}", many.into_iter().map(|mut c| c.wait().unwrap().code().unwrap()).sum::<i32>());

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream.write_all(line.to_uppercase().as_bytes()).unwrap();
    });
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"over tcp\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    server.join().unwrap();
    print!("{answer}");
    let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    a.send_to(b"udp", b.local_addr()?)?;
    let mut buf = [0; 10];
    println!("{:?}", b.recv_from(&mut buf).map(|(n, from)| (n, from == a.local_addr().unwrap())));
    let listener = UnixListener::bind("socket")?;
    let client = UnixStream::connect("socket")?;
    println!("{:?} {:?}", listener.local_addr()?.as_pathname(), client.peer_addr()?.as_pathname());
    println!("panics are caught: {}", thread::spawn(|| std::panic::resume_unwind(Box::new(1))).join().is_err());
    Ok(())
}
