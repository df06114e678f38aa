//! [`NodeId`]: the name of one of the two nodes of a pair.

use std::{error, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One of the two nodes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeId {
    /// The node on which the pair was created. It opens the connections of the peer link.
    A,
    /// The node that joined the pair. It accepts the connections of the peer link.
    B,
}

impl NodeId {
    /// The other node of the pair.
    #[must_use]
    pub fn peer(self) -> NodeId {
        match self {
            NodeId::A => NodeId::B,
            NodeId::B => NodeId::A,
        }
    }

    /// 0 for A, 1 for B: the index into arrays with one element per node.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The ASCII letter `b'A'` or `b'B'`, which labels of pool disks contain.
    #[must_use]
    pub fn letter(self) -> u8 {
        match self {
            NodeId::A => b'A',
            NodeId::B => b'B',
        }
    }

    /// The node with this ASCII letter, or `None` if it is neither `b'A'` nor `b'B'`.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<NodeId> {
        match letter {
            b'A' => Some(NodeId::A),
            b'B' => Some(NodeId::B),
            _ => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeId::A => "A",
            NodeId::B => "B",
        })
    }
}

/// The error for a text that is neither "A" nor "B".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseNodeError;

impl fmt::Display for ParseNodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node is \"A\" or \"B\"")
    }
}

impl error::Error for ParseNodeError {}

impl FromStr for NodeId {
    type Err = ParseNodeError;

    fn from_str(text: &str) -> Result<NodeId, ParseNodeError> {
        match text {
            "A" => Ok(NodeId::A),
            "B" => Ok(NodeId::B),
            _ => Err(ParseNodeError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_back_from_its_letter_and_its_text() {
        for node in [NodeId::A, NodeId::B] {
            assert_eq!(NodeId::from_letter(node.letter()), Some(node));
            assert_eq!(node.to_string().parse(), Ok(node));
            assert_eq!(node.peer().peer(), node);
            assert_eq!([NodeId::A, NodeId::B][node.index()], node);
        }
        assert_eq!(NodeId::from_letter(b'a'), None);
        assert_eq!("a".parse::<NodeId>(), Err(ParseNodeError));
    }
}
