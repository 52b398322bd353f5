// calibrated KIND AMOUNT, in Rust: as calibrated.c, which says what each kind is.
// The C library is called by its own names, so that it builds without any crate.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;
use std::thread;

const TASKS: i64 = 4;
const PROCESSES: usize = 8;
const PAGE: usize = 4096;
const CLOCK_PROCESS: i32 = 2;
const CLOCK_THREAD: i32 = 3;
const READ_WRITE: i32 = 3;
const SHARED: i32 = 1;
const PRIVATE_ANONYMOUS: i32 = 0x22;

extern "C" {
    fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    fn fork() -> i32;
    fn wait(status: *mut i32) -> i32;
    fn pipe(fds: *mut i32) -> i32;
    fn _exit(status: i32) -> !;
    fn mmap(at: *mut u8, size: usize, protection: i32, flags: i32, fd: i32, from: i64) -> *mut u8;
    fn memfd_create(name: *const u8, flags: u32) -> i32;
    fn shmget(key: i32, size: usize, flags: i32) -> i32;
    fn shmat(segment: i32, at: *const u8, flags: i32) -> *mut u8;
}

fn clock_ns(clock: i32) -> i64 {
    let mut time = [0i64; 2];
    unsafe { clock_gettime(clock, &mut time) };
    time[0] * 1_000_000_000 + time[1]
}

fn burn(ns: i64) {
    let end = clock_ns(CLOCK_THREAD) + ns;
    while clock_ns(CLOCK_THREAD) < end {
        for i in 0..20_000u32 {
            std::hint::black_box(i);
        }
    }
}

fn burn_in_kernel(ns: i64) {
    let mut zero = File::open("/dev/zero").unwrap();
    let mut buffer = vec![0u8; 1 << 16];
    let end = clock_ns(CLOCK_THREAD) + ns;
    while clock_ns(CLOCK_THREAD) < end {
        zero.read_exact(&mut buffer).unwrap();
    }
}

fn burn_by_threads(ns: i64) {
    let threads: Vec<_> = (0..TASKS).map(|_| thread::spawn(move || burn(ns / TASKS))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn a_pipe() -> (File, File) {
    let mut fds = [0i32; 2];
    assert_eq!(unsafe { pipe(fds.as_mut_ptr()) }, 0);
    unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) }
}

fn burn_by_children(ns: i64, orphaned: bool) -> i64 {
    let (mut from, mut to) = a_pipe();
    for _ in 0..TASKS {
        if unsafe { fork() } != 0 {
            continue;
        }
        if !orphaned || unsafe { fork() } == 0 {
            burn(ns / TASKS);
        }
        to.write_all(&clock_ns(CLOCK_PROCESS).to_ne_bytes()).unwrap();
        unsafe { _exit(0) };
    }
    drop(to);
    let (mut report, mut sum) = ([0u8; 8], 0);
    while from.read_exact(&mut report).is_ok() {
        sum += i64::from_ne_bytes(report);
    }
    while unsafe { wait(ptr::null_mut()) } > 0 {}
    sum
}

fn touch(memory: *mut u8, size: usize) {
    assert!(memory as isize != -1, "{}", std::io::Error::last_os_error());
    for at in (0..size).step_by(PAGE) {
        unsafe { ptr::write_volatile(memory.add(at), 1) };
    }
}

fn touch_map(size: usize, flags: i32, fd: i32) {
    touch(unsafe { mmap(ptr::null_mut(), size, READ_WRITE, flags, fd, 0) }, size);
}

fn touch_file(size: usize, file: File) {
    file.set_len(size as u64).unwrap();
    touch_map(size, SHARED, file.as_raw_fd());
}

fn write_file(size: usize) {
    let mut file = File::create("/tmp/file").unwrap();
    for _ in 0..size / PAGE {
        file.write_all(&[1u8; PAGE]).unwrap();
    }
}

fn touch_stack(size: usize) {
    const FRAME: usize = 1 << 16;
    let mut frame = [0u8; FRAME];
    touch(frame.as_mut_ptr(), FRAME);
    if size > FRAME {
        touch_stack(size - FRAME);
    }
    std::hint::black_box(&frame);
}

fn touch_by_many(size: usize) {
    let (mut ready, mut is_ready) = a_pipe();
    let (mut done, all_done) = a_pipe();
    for _ in 0..PROCESSES {
        if unsafe { fork() } == 0 {
            touch_map(size / PROCESSES, PRIVATE_ANONYMOUS, -1);
            is_ready.write_all(&[0]).unwrap();
            drop(all_done);
            let _ = done.read(&mut [0]);
            unsafe { _exit(0) };
        }
    }
    ready.read_exact(&mut [0; PROCESSES]).unwrap();
    drop(all_done);
    while unsafe { wait(ptr::null_mut()) } > 0 {}
}

fn use_memory(kind: &str, size: usize) {
    let shared = OpenOptions::new().read(true).write(true).create(true).clone();
    match kind {
        "touch" => touch_map(size, PRIVATE_ANONYMOUS, -1),
        "tmpfs" => write_file(size),
        "memfd" => touch_file(size, unsafe {
            File::from_raw_fd(memfd_create(b"memory\0".as_ptr(), 0))
        }),
        "shm" => touch_file(size, shared.open("/dev/shm/memory").unwrap()),
        "sysv" => touch(unsafe { shmat(shmget(0, size, 0o1600), ptr::null(), 0) }, size),
        "stack" => thread::Builder::new()
            .stack_size(size + (1 << 20))
            .spawn(move || touch_stack(size))
            .unwrap()
            .join()
            .unwrap(),
        "many" => touch_by_many(size),
        _ => std::process::exit(2),
    }
    println!("{{\"bytes\": {size}}}");
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let amount: i64 = words[2].parse().unwrap();
    let ns = amount * 1_000_000;
    let mut others = 0;
    match words[1].as_str() {
        "spin" => burn(ns),
        "threads" => burn_by_threads(ns),
        "children" => others = burn_by_children(ns, false),
        "orphans" => others = burn_by_children(ns, true),
        "system" => burn_in_kernel(ns),
        kind => return use_memory(kind, (amount as usize) << 20),
    }
    println!("{{\"cpu_ns\": {}}}", clock_ns(CLOCK_PROCESS) + others);
}
