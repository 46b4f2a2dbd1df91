//! Every seed, and a fixed number of mutations of them with a fixed seed, through every target.
//!
//! Not a search: `make fuzz` searches. This keeps the targets true and finds again what was found once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs, panic,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use sdlb_fuzz_targets::{TARGETS, http2};
use sdlb_routes::Chance;

const MUTATIONS: usize = 20_000;
/// Of a connection with a runtime of its own.
const HTTP2_MUTATIONS: usize = 3_000;
const INPUT_BYTES_MAX: usize = 32 << 10;
/// On any thread and in any task: a task's panic ends that task only.
static PANICS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that parsers have gone wrong on.
const ODD: &[&[u8]] =
    &[b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b";", b",", b"\xff", b"\x7f", b"0", b"%2f", b"\xff\xff\xff\xff"];
/// What all that may leave behind or hold at once, in KiB.
const GROWTH_KIB_MAX: u64 = 64 << 10;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("a folder of seeds").map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no seeds");
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

fn place(chance: &mut Chance, length: usize) -> usize {
    chance.below(length + 1)
}

/// One to four changes: a bit, a byte, a piece that goes, comes again or comes from another seed.
fn mutate(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let (a, b) = (place(chance, input.len()), place(chance, input.len()));
        let (from, to) = (a.min(b), a.max(b));
        match chance.below(7) {
            0 if from < input.len() => input[from] ^= 1 << chance.below(8),
            1 if from < input.len() => input[from] = u8::try_from(chance.below(256)).unwrap(),
            2 => drop(input.splice(from..from, ODD[chance.below(ODD.len())].iter().copied())),
            3 => drop(input.drain(from..to.min(from + 64))),
            4 => {
                let piece = input[from..to].repeat(1 + chance.below(40));
                input.splice(to..to, piece.into_iter().take(INPUT_BYTES_MAX));
            }
            5 => {
                let other = &seeds[chance.below(seeds.len())];
                let start = place(chance, other.len());
                input.splice(from..from, other[start..].iter().copied());
            }
            _ => input.truncate(to),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The targets reach what they are about: a run that never gets past the preface would find nothing, and pass.
#[test]
fn requests_come_through_to_the_endpoint() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/http2");
    let seed = |name: &str| {
        let mut files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap());
        let file = files.find(|file| file.file_name().to_str().unwrap().split_once('-').unwrap().1 == name);
        fs::read(file.expect(name).path()).unwrap()
    };
    let counts =
        ["get", "several", "post", "post-without-length", "trailers", "h2-te", "h2-cl-long", "crlf-in-the-path"];
    let counts = counts.map(|name| http2::requests(&seed(name)));
    assert_eq!(counts, [1, 20, 1, 1, 1, 0, 0, 0]);
}

/// One test: the peak of memory is that of the process.
#[test]
fn no_target_breaks_a_rule() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, SeqCst);
        told(info);
    }));
    let before = peak_kib();
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        let fine = |input: &[u8]| panic::catch_unwind(|| run(input)).is_ok() && PANICS.load(SeqCst) == 0;
        for (number, seed) in seeds.iter().enumerate() {
            assert!(fine(seed), "{name}: seed {number}");
        }
        let mut chance = Chance::new(0x5d1b);
        for number in 0..if name == "http2" { HTTP2_MUTATIONS } else { MUTATIONS } {
            let input = mutate(&seeds, &mut chance);
            if !fine(&input) {
                let file = std::env::temp_dir().join(format!("sdlb-fuzz-{name}-{number}"));
                fs::write(&file, &input).unwrap();
                panic!("{name}: mutation {number}, kept in {}", file.display());
            }
        }
    }
    let grown = peak_kib() - before;
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
}
