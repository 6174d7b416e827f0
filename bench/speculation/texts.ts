/** What a model is asked to go on from, and what it answers. */
export interface Sample {
  prompt: string;
  answer: string;
}

const LETTER = `Dear Mrs Green,
thank you for the basket of apples that you left at our door on Monday. Anna and I were out in the
garden all morning, so we did not hear you knock. The apples are big and red, and they taste like
honey. We have made a pie of the first ten, and two jars of jam. The rest is in a box in the kitchen,
where it is cool and dry. My brother Tom came to see us on Tuesday. He ate three pieces of the pie and
asked if he could take one home for his little dog. We laughed so much that the cat ran out of the
room. Tom says that your old tree is the best tree in the village, and that you must never cut it down.
If the weather is good, we will come to see you on Sunday after lunch. We will bring a jar of jam, some
bread that Anna has baked, and the basket, of course. Please tell your husband that I have found the
book about birds that he was looking for. It was under the big chair all the time.
With love, Clara`;

/** Words that an editor changes. */
const CORRECTIONS: [from: string, to: string][] = [
  ["Monday", "Friday"],
  ["big and red", "small and green"],
  ["first ten", "first twelve"],
  ["Tuesday", "Saturday"],
  ["his little dog", "his old horse"],
  ["so much", "so loud"],
  ["the best tree", "the oldest tree"],
  ["after lunch", "in the evening"],
  ["under the big chair", "behind the clock"],
];

const EDITED = CORRECTIONS.reduce((text, [from, to]) => text.replace(from, to), LETTER);

const SUMMARY = `Clara says thank you for the basket of apples that Mrs Green left at their door on
Monday. The apples are big and red, and they taste like honey. Clara and Anna have made a pie of the
first ten, and two jars of jam. Tom ate three pieces of the pie and asked if he could take one home for
his little dog. He says that Mrs Green's old tree is the best tree in the village, and that she must
never cut it down. If the weather is good, they will come on Sunday after lunch, and bring a jar of
jam, some bread that Anna has baked, and the basket. The book about birds was under the big chair all
the time.`;

const NEW =
  `The ship had no name when the boy first saw it. It lay on its side in the sand, and the sea
had taken half of its planks. He climbed in through a hole near the front and sat down in the dark.
Water dripped somewhere behind him. After a while he could make out a wheel, a broken lamp, and a
long bench with letters cut into the wood. Somebody had once counted days here, in rows of five. He put
his finger on the last row, which was not finished, and wondered what had happened then. Outside,
gulls were quarrelling over a fish. When he came home that night his mother asked why there was tar on
his sleeve, and he told her everything except the part about the letters.`;

/** The two kinds of text that speculation is for, and one that it must not slow down. */
export const SAMPLES: Readonly<Record<string, Sample>> = {
  edit: {
    prompt: `Correct the days and some other words in this letter:\n\n${LETTER}\n\nThe letter:\n\n`,
    answer: EDITED,
  },
  summary: {
    prompt: `Say in fewer words what this letter says:\n\n${LETTER}\n\nIn short:\n\n`,
    answer: SUMMARY,
  },
  new: { prompt: `${LETTER}\n\nTell a story about something else:\n\n`, answer: NEW },
};
