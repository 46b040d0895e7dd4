"""For tests: vocabularies as the libraries that own their formats write them.

Those of SentencePiece are of its version 0.2.3: SentencePieceTrainer.train with model_type="bpe" and
normalization_rule_name="identity" on lines of random words.
"""

from __future__ import annotations

import base64


def ranks(count: int) -> bytes:
    """A vocabulary as tiktoken's dump_tiktoken_bpe writes it: a line with the bytes in base64 and the rank of each."""
    return b"".join(base64.b64encode(number.to_bytes(2, "big")) + b" %d\n" % number for number in range(count))


PIECES_24 = base64.b64decode(
    "Cg4KBTx1bms+FQAAAAAYAgoMCgM8cz4VAAAAABgDCg0KBDwvcz4VAAAAABgDCgsKBOKWgXQVAAAAgAoJCgJhchUAAIC/CgoKA2Fy"
    "ZRUAAADACgoKA+KWgRUAAEDACggKAWUVAACAwAoICgFzFQAAoMAKCAoBbxUAAMDACggKAXQVAADgwAoICgFyFQAAAMEKCAoBZBUA"
    "ABDBCggKAWgVAAAgwQoICgFhFQAAMMEKCAoBZhUAAEDBCggKAWsVAABQwQoICgFuFQAAYMEKCAoBbBUAAHDBCggKAW0VAACAwQoI"
    "CgF2FQAAiMEKCAoBZxUAAJDBCggKAWkVAACYwQoICgF3FQAAoMESBxgCIBiIAgEaDAoIaWRlbnRpdHkSAA=="
)
"""24 pieces of SentencePiece: <unk>, <s>, </s>, and 21 of text."""

PIECES_25 = base64.b64decode(
    "Cg4KBTx1bms+FQAAAAAYAgoMCgM8cz4VAAAAABgDCg0KBDwvcz4VAAAAABgDCgsKBOKWgXQVAAAAgAoJCgJhchUAAIC/CgoKA2Fy"
    "ZRUAAADACg0KBuKWgWFyZRUAAEDACgoKA+KWgRUAAIDACggKAWUVAACgwAoICgFzFQAAwMAKCAoBbxUAAODACggKAXQVAAAAwQoI"
    "CgFyFQAAEMEKCAoBZBUAACDBCggKAWgVAAAwwQoICgFhFQAAQMEKCAoBZhUAAFDBCggKAWsVAABgwQoICgFuFQAAcMEKCAoBbBUA"
    "AIDBCggKAW0VAACIwQoICgF2FQAAkMEKCAoBZxUAAJjBCggKAWkVAACgwQoICgF3FQAAqMESBxgCIBmIAgEaDAoIaWRlbnRpdHkS"
    "AA=="
)
"""25 pieces of SentencePiece: <unk>, <s>, </s>, and 22 of text."""
