"""Generated products: names and descriptions of words whose frequencies differ as in natural language.

The same seed gives the same products.
"""

# ruff: noqa: RUF001 - Turkish has a dotless i

import random
from collections.abc import Iterator

WORDS = """
Kırmızı Mavi Yeşil Beyaz Siyah Sarı Lacivert Bordo Turuncu Pembe Gri Kahverengi
Bakır Porselen Cam Çelik Ahşap Seramik Pamuk Keten Deri Yün Bambu Granit
Bardak Fincan Tabak Kase Tencere Tava Çaydanlık Cezve Sürahi Kavanoz Tepsi Kaşık Çatal Bıçak Süzgeç Havlu Yastık
el yapımı ürün kalite garanti dayanıklı özel tasarım hediye ev mutfak kullanım bulaşık makinesinde için ve ile bir çok
ka ra me le ta ni so ba du ye ki mo la se ri tu pe na zo gü şe ça ğı dö vi hu fe li
"""
COLOURS, MATERIALS, KINDS, USUAL, SYLLABLES = (line.split() for line in WORDS.strip().splitlines())
RARE_WORDS = 20_000
SEED = 17


def rare_words(chance: random.Random) -> list[str]:
    """Return distinct invented words, such as brands."""
    words: dict[str, None] = {}
    while len(words) < RARE_WORDS:
        words["".join(chance.choice(SYLLABLES) for _ in range(chance.randint(2, 5)))] = None
    return list(words)


def products(count: int) -> Iterator[dict[str, str]]:
    """Yield the fields of a product: sku, name, price, description, is_active."""
    chance = random.Random(SEED)
    rare = rare_words(chance)
    for number in range(count):
        brand = rare[int(len(rare) * chance.random() ** 3)]
        name = [brand.title(), chance.choice(COLOURS), chance.choice(MATERIALS), chance.choice(KINDS)]
        described = [*(chance.choice(USUAL) for _ in range(12)), *(chance.choice(rare) for _ in range(3))]
        chance.shuffle(described)
        yield {
            "sku": f"{name[3][:2].encode('ascii', 'replace').decode().replace('?', 'X').upper()}-{number:06d}",
            "name": " ".join(name[chance.randint(0, 1) :]),
            "price": f"{chance.lognormvariate(5, 1):.2f}",
            "description": " ".join(described).capitalize() + ".",
            "is_active": "false" if chance.random() < 0.02 else "true",
        }
