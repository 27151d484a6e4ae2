// The language of `mvlib search`, as mvlib/query.py reads it; tests/docs/test_zoo.py compares the two.
// A table is {fields: {name: {kind, unit, percent, figure}}, otherNames, meant, units, tasks, columns: {name: values},
// lowered: {name: texts in lower case}}; a value that isn't known is null. A condition says true, false, or null where
// that hangs on a value that isn't known; its `fields` are those that it asks for, `texts` what they should be equal to.
"use strict";

class QueryError extends Error {
  constructor(reason, start, end) { super(reason); this.start = start; this.end = Math.max(end, start + 1); }
}

const compileQuery = (() => {
  const TOKENS = new RegExp([/(?<space>\s+)|(?<paren>[()])|(?<operator>[<>!=]=|!~|[=<>~])|(?<quoted>"[^"]*"|'[^']*')/,
                             /(?<word>(?:[^\s()=<>!~"']|!(?![=~]))+)/].map(part => part.source).join("|"), "uy");
  const NUMBER = /^([+-]?(?:\d+\.?\d*|\.\d+))([a-z]*)(%?)$/i;
  const TOO_MANY = 1e5;
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
    const escape = text => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
    const escapeInside = text => escape(text).replaceAll("-", "\\-");  // which is an error elsewhere
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
            if (inside[j] <= inside[j + 2]) parts += `${escapeInside(inside[j])}-${escapeInside(inside[j + 2])}`;
            j += 2;
          } else parts += escapeInside(inside[j]);
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

  const plain = number => number.toFixed(6).replace(/\.?0+$/, "");
  // Of conditions, one of which decides if it says `isEnough`: what they come to.
  const join = (conditions, isEnough) => i => {
    let answer = !isEnough;
    for (const condition of conditions) {
      const met = condition(i);
      if (met === isEnough) return met;
      if (met === null) answer = null;
    }
    return answer;
  };

  return function compile(query, table) {
    const {fields, otherNames, meant, units, tasks, columns, lowered} = table;
    const asked = new Set(), texts = [];
    const tokens = [];
    let position = 0;
    TOKENS.lastIndex = 0;
    while (TOKENS.lastIndex < query.length) {
      const start = TOKENS.lastIndex, match = TOKENS.exec(query);
      if (!match)
        throw new QueryError("\"'".includes(query[start]) ? "this quotation mark has no other that ends the text"
                                                           : "this means nothing here", start, start + 1);
      const kind = Object.keys(match.groups).find(name => match.groups[name] !== undefined);
      const text = match[0], comma = kind === "word" ? text.search(/[,;&|]/) : -1;
      if (comma >= 0)
        throw new QueryError("conditions are separated by spaces, alternatives by or", start + comma, start + comma + 1);
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
    // Whether a row should have this, and nobody knows it. Of most texts, none means that there is none.
    const isUnknown = (name, i) => columns[name][i] === null && (
      fields[name].figure ? tasks[columns.task[i]].includes(name)
        : fields[name].kind === "number" || (name === "license" && columns.source[i] !== null));

    const hasName = matches => i => matches(lowered.name[i]) || matches(lowered.arch[i])
      || Boolean(lowered.builder[i]) && matches(lowered.builder[i]);

    function alternatives() {
      const choices = [conditions()];
      while (isWord("or")) { next(); choices.push(conditions()); }
      return choices.length === 1 ? choices[0] : join(choices, true);
    }
    function conditions() {
      const all = [condition()];
      while (current().kind !== "end" && current().text !== ")" && !isWord("or")) {
        if (isWord("and")) next();
        all.push(condition());
      }
      return all.length === 1 ? all[0] : join(all, false);
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
      checkNegation(token);
      if (current().kind === "operator") return comparison(token, next());
      if (token.kind === "word" && isField(named(token.text)))
        fail(`'${token.text}' is a field: here an operator and a value are missing`, token);
      return hasName(pattern(token.value));
    }
    function checkNegation(token) {
      const word = token.text.toLowerCase(), isCompared = current().kind === "operator";
      if (token.kind !== "word" || !(word === "not" || word[0] === "!" || word[0] === "-" && !isCompared)) return;
      if (word === "not" || isCompared || word.length === 1)
        fail("a condition is turned round by its own sign: params>=3 for not params<3, name!~resnet50 for not resnet50",
             token);
      fail(`names with this are left out by name!~${token.text.slice(1)}`, token);
    }
    function comparison(left, sign) {
      const name = named(left.value);
      if (!isField(name)) {
        checkOrder(left, sign);
        const said = meant[left.value.toLowerCase()];
        fail(`there is no field '${left.value}'; ` + (said ? `did you mean ${said}${said.includes("?") ? "" : "?"}`
                                                           : `fields: ${Object.keys(fields).join(", ")}`), left);
      }
      const {kind, unit, percent} = fields[name];
      if (!OPERATORS[kind].includes(sign.text))
        fail(`${name} is a ${kind}, which is compared with ${OPERATORS[kind].filter(o => o !== "==").join(" ")}`, sign);
      const right = next();
      if (!["word", "quoted"].includes(right.kind))
        fail(`here a value for ${name} is missing: ${EXPECTED[kind]}`, right);
      if (kind !== "text" || right.value || sign.text.includes("~")) asked.add(name);  // whether a text is there is always known
      if (kind === "text") {
        const isNew = !texts.some(([known, text]) => known === name && text === right.value);
        if (!sign.text.includes("~") && right.value && isNew) texts.push([name, right.value]);
        return compareText(name, sign.text, right.value);
      }
      if (kind !== "number")  // which weights lie in the reader's cache
        fail(`${name} is known on your machine alone: mvlib search "${name}=yes"`, left);
      const match = NUMBER.exec(right.value), ending = match ? match[2].toLowerCase() : "";
      if (!match || (ending && !Object.hasOwn(ENDINGS, ending)))
        fail(`'${right.value}' is not ${EXPECTED.number}`, right);
      const given = Number(match[1]);
      if (unit > 1 && !ending && Math.abs(given) >= TOO_MANY)
        fail(`${name} is in ${units[unit]}: write ${plain(given / unit)}`, right);
      if (match[3] && !percent)
        fail(`${name} is not in percent: write ${right.value.slice(0, -1)}`, right);
      if (percent && given > 0 && given < 1 && !match[3])
        fail(`${name} is in percent: write ${name}${sign.text}${plain(100 * given)}`, right);
      const wanted = ending ? Number(match[1]) * ENDINGS[ending] / unit : given;
      const values = columns[name], compare = COMPARE[sign.text];
      return i => values[i] === null ? (isUnknown(name, i) ? null : false) : compare(values[i], wanted);
    }
    function checkOrder(left, sign) {
      const field = named(current().value);
      if (!NUMBER.test(left.value) || !isField(field) || !Object.hasOwn(COMPARE, sign.text)) return;
      const turned = sign.text.replace(/[<>]/, letter => letter === "<" ? ">" : "<");
      let said = `${field}${turned}${left.value}`;
      const [operator, value] = tokens.slice(position + 1, position + 3);
      if (value && Object.hasOwn(COMPARE, operator.text) && value.kind === "word")
        said += ` ${field}${operator.text}${value.text}`;
      fail(`the field stands first: ${said}`, left);
    }
    function compareText(name, sign, wanted) {
      const lower = wanted.toLowerCase(), values = lowered[name];
      const matches = sign.includes("~") ? pattern(wanted) : value => value === lower;
      const isLike = name === "name" ? hasName(matches) : i => matches(values[i]);
      const negated = sign.startsWith("!");
      if (!wanted && !sign.includes("~")) return i => (values[i] === null) !== negated;
      return i => values[i] === null ? (isUnknown(name, i) ? null : false) : isLike(i) !== negated;
    }

    const whole = current().kind === "end" ? () => true : alternatives();
    if (current().kind !== "end") fail("this closes no parenthesis that was opened");
    whole.fields = [...asked];
    whole.texts = texts;
    whole.isUnknown = isUnknown;
    return whole;
  };
})();
