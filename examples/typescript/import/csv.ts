// CSV as RFC 4180 has it: quotes around commas, line ends and doubled quotes.

/** The rows by the names in the first line. */
export function readCsv(text: string): Record<string, string>[] {
  const [names = [], ...rows] = cells(text)
  return rows.map(row => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ''])))
}

function cells(text: string): string[][] {
  const rows: string[][] = []
  let row: string[] = []
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    if (end === '' && row.length === 0 && !quoted && !plain) break // behind the last line end
    row.push(quoted?.replaceAll('""', '"') ?? plain!)
    if (end === ',') continue
    rows.push(row)
    row = []
    if (end === '') break
  }
  return rows
}
