// Imports a CSV file of customers in batches: each batch is a step, two counters and a line of progress. A process that dies goes
// on, wherever it is started again, behind the last batch that was committed.
//
// TARGET (a folder that stands for the database), STACKSHIFT_URL, STACKSHIFT_API_KEY

import { createHash } from 'node:crypto'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { NonRetryableError, StackShift } from '@stackshift-cloud/jobs'
import { readCsv } from './csv.js'

const BATCH_ROWS = 100
const stackshift = new StackShift({ apiKey: process.env.STACKSHIFT_API_KEY! })

interface Import {
  importId: string
  file: string
}

stackshift.job<Import>('importCustomers', async ({ payload, step, state, progress, log }) => {
  // Read once for each call of the handler. What it decides has to be the same each time, so its digest is remembered.
  const text = await readFile(payload.file, 'utf8')
  const digest = createHash('sha256').update(text).digest('hex')
  if (await step.run('digest', () => digest) !== digest) {
    throw new NonRetryableError(`${payload.file} has changed since the import began`)
  }
  const rows = readCsv(text)
  log.info('importing', { rows: rows.length })

  let imported = 0
  let rejected = 0
  for (let from = 0; from < rows.length; from += BATCH_ROWS) {
    const batch = await step.run(`rows-${from}`, () => importRows(payload.importId, from, rows.slice(from, from + BATCH_ROWS)))
    imported = await state.increment(`imports:${payload.importId}:imported`, batch.imported)
    rejected = await state.increment(`imports:${payload.importId}:rejected`, batch.rejected)
    progress({ done: Math.min(from + BATCH_ROWS, rows.length), of: rows.length })
  }
  return { imported, rejected }
})

/**
 * If the process dies after this and before its result is kept, the batch is imported again: so a batch that is there already is
 * written over. In SQL: insert … on conflict do nothing.
 */
async function importRows(importId: string, from: number, rows: Record<string, string>[]): Promise<{ imported: number, rejected: number }> {
  const good = rows.filter(({ email }) => /^[^@\s]+@[^@\s]+$/.test(email ?? ''))
  const file = `${process.env.TARGET}/${importId}-${from}.json`
  await new Promise(resolve => setTimeout(resolve, 20)) // as a database far away would take
  await writeFile(`${file}.new`, JSON.stringify(good))
  await rename(`${file}.new`, file)
  console.log(`imported ${from}`)
  return { imported: good.length, rejected: rows.length - good.length }
}

await stackshift.serve({ port: 0, name: 'imports' })
console.log('ready')
