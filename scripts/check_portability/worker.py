"""What check_portability runs on every CPU: encode the same texts, save the vectors.

Usage: python worker.py MODEL OUT.npz [reference]

`single` and `batch` are the runtime's own vectors, of single-text calls and of one call. The
reference machine adds what need not be repeated on slow emulators: `plain` and `precise`, from bare
sessions without and with `session.x64quantprecision`, and the `fp32` cosines of the file's probes.
"""

import sys
import warnings

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from embedge import Encoder, TruncationWarning
from embedge.modelfile.file import ModelFile, read
from embedge.modelfile.signature import INPUTS, OUTPUT
from embedge.ort.probes import verify
from embedge.text.tokenizer import TextTokenizer

TEXTS = (
    "",
    "a",
    "Yes.",
    "42",
    "The kettle is boiling.",
    "Where did you leave the spare key?",
    "BREAKING: PARLIAMENT VOTES TO KEEP THE NIGHT TRAINS RUNNING",
    "She repaired the old radio with a hairpin, a match and a good deal of patience.",
    "Interest rates rose by a quarter of a point, and the bond market yawned.",
    "A lighthouse keeper writes down the weather every hour, whether or not a ship goes by.",
    "Patients with impaired kidney function were given half the dose for the first two weeks.",
    "The tenant shall return the premises in the condition in which they were handed over, fair "
    "wear and tear excepted, and shall bear the cost of any repair that this makes necessary.",
    "whats the cheapest way 2 get from the airport 2 downtown?? asking 4 a friend lol",
    "not bad, not good, not even mediocre: the film simply happens",
    "3.14159 2.71828 1.41421 1.61803 0.57721",
    "+49 30 901820, 2031-07-04T23:59:59Z, 192.0.2.17, 0xDEADBEEF, 1e-9, -40 °C",
    "https://example.org/shop/items?id=7731&sort=price#reviews",
    "for row in table: total += row['price'] * row.get('count', 1)  # cents",
    "SELECT city, COUNT(*) FROM visits WHERE year >= 2019 GROUP BY city HAVING COUNT(*) > 10;",
    'fn main() { let v: Vec<u8> = (0..=255).collect(); println!("{:?}", &v[..4]); }',
    '{"id": 17, "tags": ["red", "round"], "price": null, "nested": {"ok": true}}',
    "Segmentation fault (core dumped) at 0x00007f3a in libfoo.so.2, thread 14",
    "!!! ??? ... --- *** ### $$$ %%% &&& @@@",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Der Fährmann weigerte sich, bei Nebel über den Fluss zu setzen.",
    "La boulangère ouvre à six heures, sauf le lundi où elle dort enfin.",
    "El niño dibujó una ballena más grande que la pared.",
    "Kedi pencerenin önünde uyuyor, yağmur dinmek bilmiyor.",
    "Chiếc thuyền nhỏ trôi qua cây cầu gỗ lúc bình minh.",
    "Старый трамвай медленно поднимается на холм.",
    "Ο ψαράς μαζεύει τα δίχτυα πριν από την καταιγίδα.",
    "ركض الطفل خلف الطائرة الورقية حتى غابت الشمس.",
    "הספרייה סגורה היום בגלל השלג.",
    "गाँव के कुएँ का पानी गर्मियों में भी ठंडा रहता है।",
    "ตลาดน้ำเปิดตั้งแต่เช้ามืดทุกวันเสาร์",
    "图书馆的窗户对着一条安静的河。",
    "駅前の本屋は夜九時まで開いています。",
    "할머니는 매년 가을에 감을 말리신다.",
    "🚲🌧️ then ☕, then 🛌 — perfect Sunday 👍🏽",
    "ﬁnal ½ price ™ ① Ａ Ｂ Ｃ  zero​width e\u0301 ñ",
    "The recipe is simple but slow. Soak the beans overnight. In the morning, rinse them and put "
    "them in a heavy pot with an onion, two bay leaves and enough water to cover them by a hand's "
    "width. Let them simmer until they are soft but whole, which takes between one and two hours "
    "depending on their age. Salt goes in at the end.",
    # Longer than the model's 256 tokens, so that it is truncated.
    " ".join(
        f"On day {day} the expedition walked {3 + day * 7 % 19} miles over {ground}, {event}."
        for day, (ground, event) in enumerate(
            [
                ("frozen marsh", "and lost a sledge to thin ice"),
                ("bare rock", "where nothing grew but orange lichen"),
                ("loose scree", "with the wind in their faces from noon on"),
                ("old snow", "and saw for the first time the smoke of another camp"),
                ("a moraine", "while the cook counted the remaining tins twice"),
            ]
            * 4,
            start=1,
        )
    ),
)


def main(model: str, out: str, *reference: str) -> None:
    warnings.filterwarnings("ignore", category=TruncationWarning)
    encoder = Encoder(model)
    saved = {
        "single": np.stack([encoder.encode(text) for text in TEXTS]),  # (texts, dim)
        "batch": encoder.encode(TEXTS),  # (texts, dim)
    }
    if reference:
        file = read(model)
        saved["plain"] = bare(file, precise=False)
        try:
            saved["precise"] = bare(file, precise=True)
        except Exception as error:  # onnxruntime's errors share no base
            # The option rewrites weights, and fails where two products share one (16 bits).
            print(f"session.x64quantprecision=1: {str(error)[-60:]!r}", file=sys.stderr)
        probes = verify(file, encoder).probes
        saved["fp32"] = np.array([probe.reference for probe in probes], np.float32)
    np.savez(out, **saved)


def bare(file: ModelFile, precise: bool) -> NDArray[np.float32]:
    """The texts' vectors, one by one, from a session that the runtime did not set up."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", str(int(precise)))
    session = ort.InferenceSession(bytes(file.data), options, providers=["CPUExecutionProvider"])
    tokenizer = TextTokenizer(file.tokenizer_json, file.settings.max_tokens)
    rows = []
    for ids in tokenizer.ids(TEXTS):
        input_ids = np.array([tokenizer.wrap(ids)])  # (1, tokens)
        rows += session.run([OUTPUT], dict(zip(INPUTS, (input_ids, input_ids**0), strict=True)))
    return np.concatenate(rows)  # (texts, dim)


if __name__ == "__main__":
    main(*sys.argv[1:])
