// Random handlers against random crashes and retries: whatever branches they have, however their own work is timed, and
// wherever the process dies, a run ends with the right result, without being parked, and no completed step is done again.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Call } from '#sdk/call.js'
import type { Committer, Lease } from '#sdk/commit.js'
import { Job, type Context } from '#sdk/job.js'
import type { CallRequest, OpResult } from '#sdk/protocol.js'
import type { Answer, Entry, Op } from './support/fleet.js'

/** A program: things in a row, or side by side. */
type Program =
  | { kind: 'step', name: string, ms: number }
  | { kind: 'fail', name: string, ms: number } // a step whose error the handler deals with
  | { kind: 'sleep', name: string }
  | { kind: 'race', name: string } // of two sleeps
  | { kind: 'own', ms: number }
  | { kind: 'patch', name: string }
  | { kind: 'row' | 'all', of: Program[] }

function randomOf(seed: number): () => number {
  return () => { // mulberry32
    seed = seed + 0x6D2B79F5 | 0
    let t = Math.imul(seed ^ seed >>> 15, 1 | seed)
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t
    return ((t ^ t >>> 14) >>> 0) / 4294967296
  }
}

function programOf(random: () => number, depth: number, names: { next: number }): Program {
  const kind = random()
  const name = `n-${names.next++}`
  const ms = Math.floor(random() * 3)
  if (depth === 0 || kind < 0.3) {
    if (kind < 0.12) return { kind: 'step', name, ms }
    if (kind < 0.18) return { kind: 'fail', name, ms }
    if (kind < 0.21) return { kind: 'sleep', name }
    if (kind < 0.22) return { kind: 'race', name }
    if (kind < 0.24) return { kind: 'patch', name }
    return kind < 0.28 ? { kind: 'own', ms } : { kind: 'step', name, ms: 0 }
  }
  const of = Array.from({ length: 1 + Math.floor(random() * 3) }, () => programOf(random, depth - 1, names))
  return { kind: kind < 0.65 ? 'row' : 'all', of }
}

const pause = (ms: number): Promise<void> => ms === 0 ? Promise.resolve() : new Promise(resolve => setTimeout(resolve, ms))

async function perform(program: Program, { step }: Context, done: (name: string) => void): Promise<unknown> {
  switch (program.kind) {
    case 'step':
      return step.run(program.name, async () => { await pause(program.ms); done(program.name); return program.name })
    case 'fail':
      try {
        return await step.run(program.name, async () => { await pause(program.ms); throw new Error(program.name) })
      } catch (error) {
        return (error as Error).message
      }
    case 'sleep':
      await step.sleep(program.name, '1h')
      return program.name
    case 'race':
      done(`${program.name} won by ${await Promise.race(['a', 'b'].map(async one => {
        await step.sleep(`${program.name}-${one}`, '1h')
        for (let i = 0; i < 5 && one === 'a'; i++) await undefined // the way from one to its end is longer
        return one
      }))}`)
      return program.name
    case 'own':
      await pause(program.ms)
      return null
    case 'patch':
      done(`${step.patched(program.name) ? '+' : '-'}patched:${program.name}`)
      return 'patch'
    case 'row': {
      const all = []
      for (const one of program.of) all.push(await perform(one, { step } as Context, done))
      return all
    }
    case 'all':
      return Promise.all(program.of.map(one => perform(one, { step } as Context, done)))
  }
}

function resultOf(program: Program): unknown {
  return 'of' in program ? program.of.map(resultOf) : program.kind === 'own' ? null : program.kind === 'patch' ? 'patch' : program.name
}

/** Commits in memory, and dies after so many commits: then it answers nobody any more. */
class Mortal implements Committer {
  readonly reachable = true
  readonly dead: Promise<void>
  private die!: () => void

  constructor(private readonly memory: Entry[], private left: number, private readonly delay: () => number) {
    this.dead = new Promise(resolve => { this.die = resolve })
  }

  attach(): void {}

  detach(): void {}

  wake(lease: Lease): void {
    void pause(this.delay()).then(() => {
      const ops = lease.take(Infinity)
      if (ops.length === 0 || this.left < 0) return
      const results = ops.map(({ text }) => apply(this.memory, JSON.parse(text) as Op))
      if (this.left-- === 0) this.die() // durable, but nobody hears of it
      else lease.settle({ results })
    })
  }

  read(): Promise<OpResult> {
    return Promise.reject(new Error('no refs here'))
  }
}

function apply(memory: Entry[], op: Op): OpResult {
  if (op.op !== 'step') return {}
  const entry = { name: op.name, kind: 'step', ...('error' in op ? { error: op.error as Entry['error'] } : { result: op.result }) }
  const place = memory.findIndex(({ name }) => name === op.name)
  if (place < 0) memory.push(entry)
  else if (!('result' in memory[place]!) && memory[place]!.error === undefined) memory[place] = entry
  return {}
}

async function play(seed: number): Promise<void> {
  const random = randomOf(seed)
  const program: Program = { kind: 'row', of: [programOf(random, 3, { next: 0 }), programOf(random, 3, { next: 1000 })] }
  const memory: Entry[] = []
  const winners = new Map<string, string>()
  const job = new Job('random', {}, context => perform(program, context, name => {
    // A patch beside steps of other branches may not be new any more in the second call; once it is remembered, it stays.
    if (name.startsWith('+')) return
    const [race, winner] = name.split(' won by ')
    if (winner !== undefined) {
      assert.equal(winners.get(race!) ?? winner, winner, `seed ${seed}: ${race} had another winner before`)
      return winners.set(race!, winner)
    }
    if (name.startsWith('-')) return assert.ok(!memory.some(entry => entry.name === name.slice(1)), `seed ${seed}: ${name}`)
    assert.ok(!memory.some(entry => entry.name === name), `seed ${seed}: ${name} was done again`)
  }), () => Promise.reject(new Error('not here')))
  for (let calls = 0; calls < 500; calls++) {
    const mortal = new Mortal(memory, Math.floor(random() * 4), () => Math.floor(random() * 2))
    const answers = random() < 0.3 // the other way to commit, now and then
    const call = new Call(JSON.parse(JSON.stringify({
      protocol: 1, run: { id: 'r', job: 'random', queueName: 'q', attempt: 1, maxAttempts: 1, createdAt: '', namespace: '', version: null, tags: {} },
      payload: {}, steps: memory, commit: answers ? null : { url: 'memory:', token: 't' }
    })) as CallRequest, job, { committer: () => mortal, warn: () => {} })
    const text = await Promise.race([call.start(), mortal.dead])
    if (text === undefined) {
      call.over = true // the process is gone
      continue
    }
    const answer = JSON.parse(text) as Answer
    const last = answer.ops.at(-1)
    const sleeps = answer.ops.filter(({ op }) => op === 'sleep')
    assert.notEqual(last?.op, 'park', `seed ${seed}: parked: ${JSON.stringify([last, program, memory])}`)
    for (const op of answer.ops) apply(memory, op)
    const first = sleeps[Math.floor(random() * sleeps.length)]
    if (first !== undefined) memory.push({ name: first.name, kind: 'sleep', result: null })
    if (random() < 0.1) for (const entry of memory) delete entry.error // as a retry of the run does
    if (answer.status === 'completed') return assert.deepEqual(answer.result, resultOf(program), `seed ${seed}`)
    assert.notEqual(answer.status, 'failed', `seed ${seed}: ${JSON.stringify(answer.error)}`)
  }
  assert.fail(`seed ${seed}: the run does not end`)
}

test('random programs survive random crashes', async () => {
  const seed = Number(process.env.SEED ?? 1)
  const count = Number(process.env.COUNT ?? 300)
  for (let i = 0; i < count; i += 50) {
    await Promise.all(Array.from({ length: Math.min(50, count - i) }, (_, n) => play(seed + i + n)))
  }
})
