//! Extracts one gz file or its standard input, and says what that cost: `extract FILE|-`. Memory is the process's
//! largest. With `--entries` each entry's line, level, fingerprint, type and message are printed, too.

use bytes::Bytes;
use logs::{Extraction, LIMITS, Settings};
use std::fs::File;
use std::io::Read;
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = arguments.iter().find(|argument| !argument.starts_with("--")) else {
        eprintln!("usage: extract [--entries] FILE|-");
        std::process::exit(2);
    };
    let prints = arguments.iter().any(|argument| argument == "--entries");
    let mut source: Box<dyn Read> = if path == "-" { Box::new(std::io::stdin()) } else { Box::new(File::open(path)?) };
    let settings = Settings::built_in();
    let begun = Instant::now();
    let mut extraction = Extraction::new("service/2024/07/01/file.gz", &settings, LIMITS);
    let (mut piece, mut packed) = (vec![0; 256 << 10], 0);
    while !extraction.is_over() {
        match source.read(&mut piece)? {
            0 => extraction.end(),
            length => {
                packed += length as u64;
                extraction.feed(Bytes::copy_from_slice(&piece[..length]));
            }
        }
        while let Some(entry) = extraction.next_entry() {
            if prints {
                let (exception, message) = (entry.exception.unwrap_or_default(), entry.message.replace('\n', "\\n"));
                println!("{}\t{}\t{}\t{exception}\t{message}", entry.line, entry.level.as_str(), entry.fingerprint);
            }
        }
    }
    let (summary, seconds) = (extraction.summary(), begun.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let largest = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim().to_owned();
    let mb = summary.bytes as f64 / 1e6;
    println!(
        "{} entries, {} unparsed, {} lines, damage {:?}, {mb:.1} MB from {:.1} MB, {seconds:.3} s, {:.0} MB/s, {largest}",
        summary.entries,
        summary.unparsed,
        summary.lines,
        summary.damage.map(|damage| damage.name()),
        packed as f64 / 1e6,
        mb / seconds
    );
    Ok(())
}
