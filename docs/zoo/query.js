// The language of `mvlib search`, as mvlib/query.py reads it; tests/docs/test_zoo.py compares the two.
// A table is {fields: {name: {kind, unit}}, otherNames, columns: {name: values}, lowered: {name: texts in lower case}};
// a value that isn't known is null.
"use strict";

class QueryError extends Error {
  constructor(reason, start, end) { super(reason); this.start = start; this.end = Math.max(end, start + 1); }
}

const compileQuery = (() => {
  const TOKENS = new RegExp([/(?<space>\s+)|(?<paren>[()])|(?<operator>[<>!=]=|!~|[=<>~])|(?<quoted>"[^"]*"|'[^']*')/,
                             /(?<word>(?:[^\s()=<>!~"']|!(?![=~]))+)/].map(part => part.source).join("|"), "uy");
  const NUMBER = /^([+-]?(?:\d+\.?\d*|\.\d+))([a-z]*)%?$/i;
  const ENDINGS = {k: 1e3, m: 1e6, g: 1e9};
  const COMPARE = {
    "=": (a, b) => a === b, "==": (a, b) => a === b, "!=": (a, b) => a !== b,
    "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  };
  const OPERATORS = {"number": Object.keys(COMPARE), "text": ["=", "==", "!=", "~", "!~"],
                     "yes or no": ["=", "==", "!="]};
  const EXPECTED = {"number": "a number, which may end in k, M or G", "text": "a text, quoted if it holds spaces",
                    "yes or no": "yes or no"};

  // As Python's fnmatch: * ? [a-z] [!a-z]; "[" without an end is itself.
  function wildcard(pattern) {
    const escape = text => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
    let found = "";
    for (let i = 0; i < pattern.length;) {
      const letter = pattern[i++];
      if (letter === "*") found += "[^]*";
      else if (letter === "?") found += "[^]";
      else if (letter === "[") {
        let end = i;
        if (pattern[end] === "!") end++;
        if (pattern[end] === "]") end++;
        while (end < pattern.length && pattern[end] !== "]") end++;
        if (end >= pattern.length) { found += "\\["; continue; }
        const negated = pattern[i] === "!", inside = pattern.slice(i + (negated ? 1 : 0), end);
        i = end + 1;
        let parts = "";
        for (let j = 0; j < inside.length; j++) {
          if (inside[j + 1] === "-" && j + 2 < inside.length) {
            if (inside[j] <= inside[j + 2]) parts += `${escape(inside[j])}-${escape(inside[j + 2])}`;
            j += 2;
          } else parts += escape(inside[j]);
        }
        found += negated ? `[^${parts}]` : parts ? `[${parts}]` : "(?!)";
      } else found += escape(letter);
    }
    return new RegExp(`^(?:${found})$`, "u");
  }
  function pattern(text) {
    const wanted = text.toLowerCase();
    if (!/[*?[]/.test(wanted)) return value => value.includes(wanted);
    const matcher = wildcard(wanted);
    return value => matcher.test(value);
  }

  return function compile(query, table) {
    const {fields, otherNames, columns, lowered} = table;
    const tokens = [];
    let position = 0;
    TOKENS.lastIndex = 0;
    while (TOKENS.lastIndex < query.length) {
      const start = TOKENS.lastIndex, match = TOKENS.exec(query);
      if (!match)
        throw new QueryError("\"'".includes(query[start]) ? "this quotation mark has no other that ends the text"
                                                           : "this means nothing here", start, start + 1);
      const kind = Object.keys(match.groups).find(name => match.groups[name] !== undefined);
      const text = match[0];
      if (kind !== "space")
        tokens.push({kind, text, start, end: TOKENS.lastIndex, value: kind === "quoted" ? text.slice(1, -1) : text});
    }
    tokens.push({kind: "end", text: "", value: "", start: query.length, end: query.length});
    const current = () => tokens[position];
    const next = () => tokens[Math.min(position++, tokens.length - 1)];
    const fail = (reason, token = current()) => { throw new QueryError(reason, token.start, token.end); };
    const isWord = text => current().kind === "word" && current().text.toLowerCase() === text;
    const named = text => {
      const name = text.toLowerCase();
      return Object.hasOwn(otherNames, name) ? otherNames[name] : name;
    };
    const isField = name => Object.hasOwn(fields, name);

    const hasName = matches => i => matches(lowered.name[i]) || matches(lowered.arch[i])
      || Boolean(lowered.builder[i]) && matches(lowered.builder[i]);

    function alternatives() {
      const choices = [conditions()];
      while (isWord("or")) { next(); choices.push(conditions()); }
      return choices.length === 1 ? choices[0] : i => choices.some(choice => choice(i));
    }
    function conditions() {
      const all = [condition()];
      while (current().kind !== "end" && current().text !== ")" && !isWord("or")) {
        if (isWord("and")) next();
        all.push(condition());
      }
      return all.length === 1 ? all[0] : i => all.every(one => one(i));
    }
    function condition() {
      const token = next();
      if (token.text === "(") {
        const inner = alternatives();
        if (next().text !== ")") fail("this parenthesis is not closed", token);
        return inner;
      }
      if (!["word", "quoted"].includes(token.kind) || (token.kind === "word" && /^(or|and)$/i.test(token.text)))
        fail("here a condition is missing, such as top1>80, or a word of the name", token);
      if (current().kind === "operator") return comparison(token, next());
      if (token.kind === "word" && isField(named(token.text)))
        fail(`'${token.text}' is a field: here an operator and a value are missing`, token);
      return hasName(pattern(token.value));
    }
    function comparison(left, sign) {
      const name = named(left.value);
      if (!isField(name)) fail(`there is no field '${left.value}'; fields: ${Object.keys(fields).join(", ")}`, left);
      const {kind, unit} = fields[name];
      if (!OPERATORS[kind].includes(sign.text))
        fail(`${name} is a ${kind}, which is compared with ${OPERATORS[kind].filter(o => o !== "==").join(" ")}`, sign);
      const right = next();
      if (!["word", "quoted"].includes(right.kind))
        fail(`here a value for ${name} is missing: ${EXPECTED[kind]}`, right);
      if (kind === "text") return compareText(name, sign.text, right.value);
      if (kind !== "number")  // which weights lie in the reader's cache
        fail(`${name} is known on your machine alone: mvlib search "${name}=yes"`, left);
      const match = NUMBER.exec(right.value), ending = match ? match[2].toLowerCase() : "";
      if (!match || (ending && !Object.hasOwn(ENDINGS, ending)))
        fail(`'${right.value}' is not ${EXPECTED.number}`, right);
      const wanted = ending ? Number(match[1]) * ENDINGS[ending] / unit : Number(match[1]);
      const values = columns[name], compare = COMPARE[sign.text];
      return i => values[i] !== null && compare(values[i], wanted);
    }
    function compareText(name, sign, wanted) {
      const lower = wanted.toLowerCase(), values = lowered[name];
      const matches = sign.includes("~") ? pattern(wanted) : value => value === lower;
      const isLike = name === "name" ? hasName(matches) : i => matches(values[i]);
      const negated = sign.startsWith("!");
      return i => values[i] !== null && isLike(i) !== negated;
    }

    if (current().kind === "end") return () => true;
    const whole = alternatives();
    if (current().kind !== "end") fail("this closes no parenthesis that was opened");
    return whole;
  };
})();
