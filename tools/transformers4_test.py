"""The transformers4 layer works in front of the others."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import tempfile, torch, transformers
assert transformers.__version__ == "4.45.1", transformers.__version__
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
config = transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
model = transformers.LlamaForCausalLM(config).eval()
with tempfile.TemporaryDirectory() as directory:
    model.save_pretrained(directory)
    again = transformers.AutoModelForCausalLM.from_pretrained(directory)
tokens = torch.arange(10)[None]
assert torch.equal(model(tokens).logits, again(tokens).logits)
"""


def test_transformers_4_loads_a_model(transformers4: dict[str, str]) -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], env=transformers4, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
