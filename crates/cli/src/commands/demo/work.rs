//! The computation: SHA-256, lines and bytes of each file, by the shell out there and by us here.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::input::Input;
use crate::failure::{Naming as _, Outcome};

/// The file that each task leaves.
pub(super) const RESULT_FILE: &str = "part";

/// Steps of one task, however few its files are: it says after each how far it is, and rests a
/// little, so that the kills hit tasks that run.
pub(super) const STEPS: u32 = 10;

/// One member's work, with the tools of any Debian. It takes every Nth file from its own number on.
pub(super) const SCRIPT: &str = r#"
set -eu
export LC_ALL=C
cd "$MUTUAL_INPUT"
find . -type f -print0 | sort -z |
    sed -zn "${MUTUAL_ARRAY_INDEX}~${MUTUAL_ARRAY_COUNT}p" > "$TMPDIR/share"
count=$(tr -cd '\0' < "$TMPDIR/share" | wc -c)
echo "share $MUTUAL_ARRAY_INDEX of $MUTUAL_ARRAY_COUNT, attempt $MUTUAL_ATTEMPT: $count files"
: > "$MUTUAL_OUTPUT/part"
hash_some='
    for file in "$@"; do
        hash=$(sha256sum < "$file")
        counts=$(wc -lc < "$file")
        set -- $counts
        printf "%s %s %s %s\n" "${hash%% *}" "$1" "$2" "$file" >> "$MUTUAL_OUTPUT/part"
    done'
size=$(((count + STEPS - 1) / STEPS))
step=0
while [ "$step" -lt "$STEPS" ]; do
    first=$((step * size + 1))
    step=$((step + 1))
    if [ "$first" -le "$count" ]; then
        sed -zn "${first},$((step * size))p" "$TMPDIR/share" | xargs -0 sh -c "$hash_some" sh
    fi
    echo "step $step of $STEPS: $(wc -l < "$MUTUAL_OUTPUT/part") files hashed"
    sleep "$PAUSE"
done
echo "share $MUTUAL_ARRAY_INDEX is done"
"#;

/// What member `index` of `count` must leave in [`RESULT_FILE`].
pub(super) fn expected(input: &Input, index: usize, count: usize) -> Outcome<Vec<u8>> {
    let mut part = Vec::new();
    for name in input.sorted().iter().skip(index - 1).step_by(count) {
        let path = input.root.join(Path::new(name));
        let content = fs::read(&path).naming(path.display())?;
        let lines = content.iter().filter(|&&byte| byte == b'\n').count();
        let mut line = hex::encode(Sha256::digest(&content));
        let _ = write!(line, " {lines} {} ", content.len());
        part.extend_from_slice(line.as_bytes());
        part.extend_from_slice(name.as_bytes());
        part.push(b'\n');
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs the very script that the demo sends out, here, and compares.
    #[test]
    fn the_shell_and_we_compute_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("with space")).unwrap();
        for (name, content) in [
            ("a", &b"one\ntwo\n"[..]),
            ("b.txt", b""),
            ("with space/c", b"no newline"),
            ("with space/d", &[0xff, 0, 10]),
        ] {
            fs::write(source.join(name), content).unwrap();
        }
        let input = Input::collect(Some(&source)).unwrap();
        for (index, count) in [(1, 3), (2, 3), (3, 3), (5, 6)] {
            let out = dir.path().join(format!("out{index}of{count}"));
            fs::create_dir(&out).unwrap();
            let status = Command::new("sh")
                .args(["-c", SCRIPT])
                .env("MUTUAL_INPUT", &source)
                .env("MUTUAL_OUTPUT", &out)
                .env("TMPDIR", dir.path())
                .env("MUTUAL_ATTEMPT", "1")
                .env("MUTUAL_ARRAY_INDEX", index.to_string())
                .env("MUTUAL_ARRAY_COUNT", count.to_string())
                .env("STEPS", STEPS.to_string())
                .env("PAUSE", "0")
                .status()
                .unwrap();
            assert!(status.success());
            let found = fs::read(out.join(RESULT_FILE)).unwrap();
            assert_eq!(found, expected(&input, index, count).unwrap());
        }
    }
}
