"""Toys that need no model and no download: an encoder and a small judged collection."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus, Document
from retrievekit.protocols import EncoderCard, Similarity
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries


class ToyEncoder:
    """Hashed bags of words as vectors: no model, no torch, the same everywhere.

    Each lower-case word adds 1 or -1 at a few places that its BLAKE2b hash picks; the sum is
    brought to length 1 (a text without words stays 0). Texts that share words are similar, and
    nothing else is.

    Args:
        dim: Components of a vector, at least 8.
        similarity: How an index compares the vectors.
    """

    def __init__(self, dim: int = 256, *, similarity: Similarity = "cosine") -> None:
        self._dim = dim
        self._similarity = similarity

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"ToyEncoder({self._dim}, similarity={self._similarity!r})"

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        identity = {"model": "toy", "version": 1, "dim": self._dim, "similarity": self._similarity}
        return EncoderCard("toy", identity, {"dtype": "float32", "backend": "numpy"})

    @classmethod
    def from_card(cls, card: EncoderCard) -> ToyEncoder:
        """The encoder of a card.

        Args:
            card: A card that a `ToyEncoder` gave.

        Returns:
            The encoder.
        """
        return cls(card.identity["dim"], similarity=card.identity["similarity"])

    @property
    def dim(self) -> int:
        """Components of each vector."""
        return self._dim

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return self._similarity

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, float32 ``(n, dim)``."""
        return self._vectors(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, float32 ``(n, dim)``."""
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.zeros((len(texts), self._dim), np.float32)
        for row, text in enumerate(texts):
            sums = np.zeros(self._dim)
            for word in re.findall(r"\w+", text.lower()):
                stem = re.sub(r"(?<=\w\w\w)(?:s|es|ed|ing)$", "", word)
                picked = hashlib.blake2b(stem.encode("utf-8"), digest_size=16).digest()
                for place in range(0, 16, 4):
                    number = int.from_bytes(picked[place : place + 4], "little")
                    sums[(number >> 1) % self._dim] += 1 if number & 1 else -1
            length = math.sqrt(float(sums @ sums))
            if length:
                out[row] = sums / length
        return out


class Toy(NamedTuple):
    """A small collection.

    Args:
        corpus: The documents, with the metadata `topic` and `year`.
        queries: The queries.
        qrels: Which documents answer them, graded 1 and 2.
    """

    corpus: Corpus
    queries: Queries
    qrels: Qrels


def toy_corpus() -> Toy:
    """A hundred one-sentence documents on ten topics, with queries and judgements.

    Returns:
        The collection; ids are such as ``cats-3``, every query has one to three relevant documents.
    """
    documents = []
    for number, (topic, lines) in enumerate(_DOCUMENTS.items()):
        for place, line in enumerate(lines.strip().splitlines(), 1):
            title, _, text = line.strip().partition(": ")
            metadata = {"topic": topic, "year": 2000 + (7 * place + 3 * number) % 25}
            documents.append(Document(f"{topic}-{place}", text, title, metadata))
    texts, grades = {}, {}
    for number, (query, answers) in enumerate(_QUESTIONS.items(), 1):
        texts[f"q{number}"] = query
        judged = (answer.split("=") for answer in answers.split())
        grades[f"q{number}"] = {doc_id: int(grade) for doc_id, grade in judged}
    return Toy(Corpus.from_documents(documents), Queries.from_texts(texts), Qrels.from_dict(grades))


_DOCUMENTS = {
    "cats": """
        Purring: A cat purrs by twitching the muscles of its larynx many times a second.
        Whiskers: Whiskers tell a cat whether its body fits through a gap in the dark.
        Kittens: Kittens are born blind and open their eyes after about ten days.
        Hunting: A hunting cat waits without moving, then leaps on the mouse.
        Sleep: Cats sleep most of the day and wake at dusk to hunt.
        Claws: Claws are drawn in while a cat walks, which keeps them sharp.
        Milk: Many grown cats cannot digest milk, although they like its taste.
        Falling: A falling cat turns in the air and lands on its feet.
        Scratching: Scratching a post leaves scent and takes the old sheath off a claw.
        Eyes: A layer behind the retina makes the eyes of a cat shine at night.
    """,
    "bread": """
        Sourdough: Sourdough rises by wild yeast and bacteria that live in the starter.
        Kneading: Kneading lines up the gluten so that dough holds the gas.
        Crust: Steam in the first minutes of baking gives bread a thin, shiny crust.
        Salt: Salt slows the yeast down and tightens the dough.
        Rye: Rye has little gluten, so its bread is dense and keeps moist for days.
        Proofing: Dough that proofs overnight in the cold tastes better.
        Flatbread: Flatbread needs neither yeast nor an oven, only a hot pan.
        Stale bread: Bread turns stale as its starch crystallises, faster in the fridge.
        Baguette: A baguette is slashed before baking so that it opens where the baker wants.
        Flour: Strong flour holds more water than soft flour because it has more protein.
    """,
    "bicycles": """
        Gears: Low gears make a hill easier but every turn of the pedals shorter.
        Brakes: Disc brakes stop a bicycle in the rain better than rim brakes.
        Tyres: Wide tyres at low pressure roll more comfortably over gravel.
        Puncture: To mend a puncture, find the hole under water and glue a patch on it.
        Chain: A dry chain squeaks and wears the sprockets; a drop of oil on each link helps.
        Helmet: A helmet must be replaced after a crash, even if no crack is seen.
        Saddle: The saddle is at the right height when the leg is almost straight.
        Lights: A dynamo in the hub feeds the lights without any battery.
        Balance: A moving bicycle stays upright because it steers into each fall.
        Folding: A folding bicycle fits under the seat of a train.
    """,
    "stars": """
        Colour: Hot stars shine blue, cool stars shine red.
        Birth: Stars are born where clouds of gas collapse under their own weight.
        Supernova: A heavy star ends in a supernova that outshines its galaxy for weeks.
        Neutron star: A spoonful of a neutron star would weigh as much as a mountain.
        Twinkling: Stars twinkle because the air bends their light unsteadily.
        Distance: The distance of a near star follows from its shift against the background.
        Clusters: The stars of a cluster were born together from one cloud.
        White dwarf: The sun will shrink to a white dwarf the size of the earth.
        Fusion: A star burns hydrogen to helium in its core.
        Constellations: The stars of a constellation only seem to stand near each other.
    """,
    "gardens": """
        Compost: Compost needs green and brown waste, air and some water.
        Slugs: Slugs eat young lettuce at night; a board laid out traps them by morning.
        Pruning: Apple trees are pruned in winter, while they rest.
        Bees: Flowers that open early feed the bees after winter.
        Mulch: A layer of mulch keeps soil moist and weeds down.
        Tomatoes: Tomatoes crack when a dry week is followed by heavy rain.
        Roses: Black spots on rose leaves come from a fungus that loves wet leaves.
        Seeds: Lettuce seeds need light, so they are not covered with soil.
        Frost: A cloth over the bed protects seedlings from a late frost.
        Watering: Watering seldom but deeply makes roots grow down.
    """,
    "trains": """
        Points: Points guide the wheels of a train from one track to another.
        Braking: A freight train needs more than a kilometre to brake.
        Steam: A steam engine boils water and lets the pressure push its pistons.
        Gauge: Where the gauge of the track changes, wheels or wagons must be changed.
        Signals: A red signal protects the section of track that another train is in.
        Night train: The night train to the coast has beds and a small kitchen.
        Electric: Electric trains give power back to the wire while they brake.
        Tunnels: A train that enters a tunnel at speed pushes a wave of pressure ahead.
        Timetable: A clockface timetable lets trains meet at the same minute of every hour.
        Rails: Rails are welded into long pieces, so the old clatter is gone.
    """,
    "music": """
        Tuning: An orchestra tunes to the A of the oboe.
        Fugue: In a fugue one voice after the other enters with the same theme.
        Piano: Felt hammers strike the strings of a piano.
        Drums: A tighter skin gives a drum a higher sound.
        Rhythm: A waltz counts three beats to the bar.
        Choir: A choir has sopranos, altos, tenors and basses.
        Violin: Rosin makes the bow of a violin grip the string.
        Octave: The octave of a string sounds when half of it swings.
        Jazz: Jazz players improvise over the chords of a song.
        Organ: Air blown through pipes makes the organ sound.
    """,
    "weather": """
        Thunder: Thunder follows lightning by three seconds for each kilometre.
        Fog: Fog forms when moist air cools near the ground.
        Hail: Hail grows in a storm cloud as ice is carried up again and again.
        Rainbow: A rainbow stands opposite the sun, where drops bend its light.
        Wind: Wind blows from high to low pressure, turned aside by the spin of the earth.
        Snow: Snow falls as six-sided crystals when the air is cold all the way down.
        Barometer: A falling barometer tells of a storm to come.
        Dew: Dew settles on grass in clear, calm nights.
        Monsoon: The monsoon brings rain when the land is warmer than the sea.
        Tornado: A tornado reaches from the cloud to the ground and spins.
    """,
    "chess": """
        Castling: Castling moves king and rook at once and is done only once.
        Fork: A knight that attacks two pieces at once makes a fork.
        Endgame: King and rook drive a lone king to the edge of the board.
        Opening: In the opening, bring out knights and bishops before the queen.
        Promotion: A pawn that reaches the last rank becomes a queen, as a rule.
        Stalemate: A player who has no move but is not in check is in stalemate: a draw.
        Clock: A player whose clock runs out loses, unless the other cannot mate.
        En passant: A pawn that jumps two squares can be taken en passant by its neighbour.
        Pin: A pinned piece may not move, since the king stands behind it.
        Sacrifice: A sacrifice gives up a piece for an attack on the king.
    """,
    "oceans": """
        Tides: The moon raises two tides a day by pulling on the sea.
        Salt: Rivers carry salt into the sea, and it stays when water evaporates.
        Currents: The Gulf Stream carries warm water towards the north.
        Depth: No sunlight reaches the sea below a thousand metres.
        Coral: Coral reefs are built by tiny animals and die in water that is too warm.
        Whales: Whales sing to each other across hundreds of kilometres.
        Waves: Waves break where the water is as shallow as they are high.
        Tsunami: A tsunami is hardly seen in deep water and rises near the coast.
        Plankton: Plankton drifts with the current and feeds the whales.
        Ice: Sea ice is less salty than the water that it froze from.
    """,
}

_QUESTIONS = {
    "why does a cat purr": "cats-1=2",
    "cats that hunt mice at dusk": "cats-4=2 cats-5=1",
    "how does sourdough rise": "bread-1=2",
    "why does bread get stale in the fridge": "bread-8=2",
    "salt": "bread-4=1 oceans-2=1 oceans-10=1",
    "mend a puncture": "bicycles-4=2",
    "brakes in the rain": "bicycles-2=2",
    "which stars are blue": "stars-1=2",
    "how are stars born": "stars-2=2 stars-7=1",
    "slugs eat my lettuce": "gardens-2=2 gardens-8=1",
    "protect seedlings from frost": "gardens-9=2",
    "how long does a train need to brake": "trains-2=2 trains-7=1",
    "three beats to the bar": "music-5=2",
    "what makes the string of a violin sound": "music-7=2 music-8=1 music-3=1",
    "thunder after lightning": "weather-1=2",
    "when does fog form": "weather-2=2 weather-8=1",
    "knight attacks two pieces": "chess-2=2",
    "a draw because there is no move": "chess-6=2",
    "why are there two tides a day": "oceans-1=2",
    "what do whales eat": "oceans-9=2 oceans-6=1",
}
