//! Fixed-size byte strings: hexadecimal for people and JSON, raw bytes in binary formats.

/// Why a hexadecimal string is not a value of the expected size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits for {what}, found {found:?}")]
pub struct HexError {
    /// What was being read, for example `node id`.
    pub what: &'static str,
    /// How many digits it takes.
    pub expected: usize,
    /// The first characters of what was found.
    pub found: String,
}

pub(crate) fn parse_hex<const N: usize>(
    what: &'static str,
    text: &str,
) -> Result<[u8; N], HexError> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(HexError {
            what,
            expected: N * 2,
            found: text.chars().take(80).collect(),
        }),
    }
}

/// Declares a newtype over `[u8; N]` that reads and prints as hexadecimal.
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..self.0.len().min(6)]))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ids::HexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::bytes::parse_hex($what, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::bytes::deserialize(deserializer, $what).map(Self)
            }
        }
    };
}
pub(crate) use fixed_bytes;

/// Reads `N` bytes: hexadecimal text in readable formats, a byte string in binary ones.
pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>, const N: usize>(
    deserializer: D,
    what: &'static str,
) -> Result<[u8; N], D::Error> {
    struct Raw<const N: usize>(&'static str);
    impl<const N: usize> serde::de::Visitor<'_> for Raw<N> {
        type Value = [u8; N];
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{N} bytes for {}", self.0)
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            parse_hex(self.0, text).map_err(E::custom)
        }
        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            bytes
                .try_into()
                .map_err(|_| E::invalid_length(bytes.len(), &self))
        }
    }
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Raw::<N>(what))
    } else {
        deserializer.deserialize_bytes(Raw::<N>(what))
    }
}
