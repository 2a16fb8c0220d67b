"""What the cosines of an embedder mean, measured on sentences that come along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding.calibration import Calibration

if TYPE_CHECKING:
    from haive.core.persistence.embedding.embedder import Embedder

# Four turns of each of sixteen conversations; none of them is about what another one is about.
_CONVERSATIONS = (
    (
        "I'd like to book a table for four people on Friday evening.",
        "Which restaurant would you like, and at what time?",
        "Something Italian, around seven, please.",
        "Do they have vegetarian dishes on the menu?",
    ),
    (
        "Can you find me a flight to Lisbon next month?",
        "There is a direct one on the third in the morning.",
        "How much is it with one suitcase?",
        "Fine, take the window seat.",
    ),
    (
        "The build fails since I upgraded the compiler.",
        "Which error does the linker report?",
        "It says that a symbol is undefined in the static library.",
        "Then compile that library again with the same flags.",
    ),
    (
        "I've had a headache and a sore throat for three days.",
        "Do you have a fever as well?",
        "Only a slight one in the evening.",
        "You should see a doctor if it is not better tomorrow.",
    ),
    (
        "What is my current account balance?",
        "You have 2,400 euros in it.",
        "Please transfer 300 of them to my savings.",
        "Has my salary come in yet?",
    ),
    (
        "Can you recommend a film for tonight?",
        "Do you prefer a comedy or a thriller?",
        "A thriller, but nothing too long.",
        "Who directed that one, and who plays the lead?",
    ),
    (
        "My order has still not arrived.",
        "Could you give me the order number?",
        "The parcel should have been delivered last week.",
        "I would rather have a refund than a replacement.",
    ),
    (
        "Will it rain in Hamburg at the weekend?",
        "Saturday will be dry, with clouds on Sunday.",
        "How warm will it be in the afternoon?",
        "And is there going to be much wind?",
    ),
    (
        "Help me write a cover letter for a job as a nurse.",
        "How many years of experience do you have?",
        "Five, most of them in intensive care.",
        "Make the second paragraph more confident.",
    ),
    (
        "We are looking for a flat with two bedrooms near the station.",
        "What is the most you want to pay in rent?",
        "No more than twelve hundred, heating included.",
        "When could we come and view it?",
    ),
    (
        "Explain photosynthesis to a pupil of twelve.",
        "Plants turn light, water and carbon dioxide into sugar.",
        "Why are leaves green then?",
        "Because chlorophyll reflects that part of the light.",
    ),
    (
        "Play some jazz from the fifties.",
        "Here is an album by a famous trumpeter.",
        "Skip this song and turn the volume down.",
        "Add the band to my favourites.",
    ),
    (
        "How long do I have to bake sourdough bread?",
        "About forty minutes in a very hot oven.",
        "The crust gets too dark before the inside is done.",
        "Cover it with a lid for the first half.",
    ),
    (
        "My dog does not want to eat since yesterday.",
        "Is it drinking enough water?",
        "Yes, but it sleeps most of the day.",
        "Let a vet look at it today.",
    ),
    (
        "What does clause nine of the contract mean for us?",
        "It lets either party terminate with three months' notice.",
        "Are we liable for damages in that case?",
        "Only for those that were caused by gross negligence.",
    ),
    (
        "Show me the revenue of the last quarter by region.",
        "The north has grown by eight percent.",
        "Compare that with the forecast in a chart.",
        "Leave out the customers who have churned.",
    ),
)


# What is said in every conversation, which makes all of them somewhat alike.
_POLITE = (
    ("Yes, that sounds good to me, thank you.", "Is there anything else I can help you with?"),
    ("Okay, thanks. Can you do that for me?", "Sure, I can help you with that."),
    ("Thanks, that is all I need.", "You're welcome. Have a nice day!"),
    ("Could you tell me more about it, please?", "Okay, please confirm that this is right."),
)


async def calibrate(embedder: Embedder) -> Calibration:
    """Measure what the cosines of an embedder mean, on 16 short conversations in English.

    Better is `Calibration.of` with cosines of messages and sessions of your own that do not belong
    together, where there are some: the language and the way that people write make a difference.
    Dialogues with one service desk are more alike than these, whatever they are about: of MiniLM's
    cosines of such, 0.36 has the share of 0.8, and of these 0.27.

    Raises:
        ModelError: The embedder failed.
    """
    said = [
        (*conversation, *_POLITE[number % len(_POLITE)])
        for number, conversation in enumerate(_CONVERSATIONS)
    ]
    vectors = await embedder.embed([text for conversation in said for text in conversation])
    groups = vectors.reshape(len(said), -1, vectors.shape[1])
    centroids = groups.mean(axis=1)
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-9)
    cosines = vectors @ centroids.T
    own = np.repeat(np.eye(len(said), dtype=bool), groups.shape[1], axis=0)
    return Calibration.of(cosines[~own])
