//! Numbers at the end of names: `parser2` says nothing, `sha256` says everything.

/// Terms that end in digits by nature.
const TERMS: [&str; 30] = [
    "aes128", "aes256", "base32", "base64", "bfloat16", "blake3", "cgroup1", "cgroup2", "cidv0",
    "cidv1", "crc32", "ed25519", "h2", "http1", "http2", "ipv4", "ipv6", "k8s", "rfc3339", "s3",
    "sha1", "sha256", "sha512", "sqlite3", "utf8", "utf16", "x25519", "arm64", "amd64", "x86_64",
];

/// Letters before digits that name a kind of number: integer widths, versions, percentiles.
const PREFIXES: [&str; 7] = ["u", "i", "f", "v", "p", "q", "version"];

/// Whether a name ends in digits that are no part of a known term.
pub(super) fn ends_in_a_number(name: &str) -> bool {
    if !name.ends_with(|last: char| last.is_ascii_digit())
        || TERMS.iter().any(|term| name.ends_with(term))
    {
        return false;
    }
    let word = name.rsplit('_').next().unwrap_or(name);
    let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
    !PREFIXES.contains(&letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_names_and_counters_are_not() {
        for good in [
            "parse",
            "from_sha256",
            "as_u64",
            "migrate_v1",
            "latency_p99",
            "ipv4",
            "s3",
        ] {
            assert!(!ends_in_a_number(good), "{good}");
        }
        for bad in ["parser2", "step_1", "nodes_50", "case10"] {
            assert!(ends_in_a_number(bad), "{bad}");
        }
    }
}
