// What a run remembers, met with what its handler asks for. The order is checked here.
//
// The memory is a list in the order in which things were committed, and a cursor stands before the first entry that
// was not given back yet. An entry is given back when the cursor is at it and the handler has asked for it; what is
// new begins when the cursor is at the end. Everything else waits.
//
// Why a handler that did not change never waits for ever: when entry i was committed, its handler had asked for it,
// having been given nothing but entries before i (things are given in the order in which they are committed, one at a
// time). Code between durable calls decides from the payload and from what it was given, so the same handler, given
// the same entries, comes to ask for entry i again, whatever else it asks for besides (Promise.all), and however long
// its own work takes. By induction the cursor reaches the end. What is new was not asked for earlier than that
// either, as far as an observer could tell, so it may wait until then.
//
// Turned round: a handler that is idle, waits for something out of turn, and does not ask for the entry at the cursor
// is other code than the one that began the run (a step was renamed, left out, put before another). The run is
// parked: nothing new was begun, nothing was given to the wrong place. The handler's own work between durable calls
// cannot be seen from here, so "idle" is: nothing of ours is going on, and nothing was asked for during a grace time,
// a longer one for a handler that was seen to do things side by side. The same name with another kind needs no grace:
// no order of things brings it about. Neither does a handler that has finished with entries left.
//
// Entries are given back one at a time, each after the code that was given the one before has gone on: so that the first in
// a Promise.race is the same each time. An entry with neither a result nor an error is one that a retry of the run has
// forgotten. It is done again in its place: the cursor stays until that is over.
//
// `patched` asks without waiting. A patch is remembered as a step `patched:NAME`; it is new only where the cursor is at
// the end, since a run that remembers anything later has gone by this place without it. The cursor passes over
// patches, so that a call of `patched` can be taken out again once no run needs it.

import type { Remembered } from './protocol.js'

/** Something that the handler asked for. */
export interface Asked {
  readonly kind: string
  name: string
  /** Its entry's place in the memory; −1: it is new. */
  place: number
}

export interface ReplayHost<A extends Asked> {
  /** Gives back what is remembered. */
  deliver(asked: A, entry: Remembered): void
  /** Does what is new, or has to be done again in its place (then `passed` is called when it is over). */
  begin(asked: A): void
  /** Calls back when the code that was given the entry before has gone on. */
  later(callback: () => void): void
  /** Gets an entry that did not fit into the request, then calls `loaded`. */
  load(entry: Remembered): void
}

export interface Mismatch {
  name: string
  expected: string
  found: string
}

const PATCH = 'patched:'

export class Replay<A extends Asked> {
  private readonly entries: Remembered[]
  private readonly places = new Map<string, number>()
  private readonly counts = new Map<string, number>()
  private readonly asked: (A | undefined)[] = []
  private readonly patches = new Map<string, boolean>()
  private held: A[] = []
  private cursor = 0
  private busyAt = -1 // the place of an entry that is about to be given, is being loaded, or done again

  constructor(entries: Remembered[], private readonly host: ReplayHost<A>) {
    this.entries = entries
    for (let place = 0; place < entries.length; place++) this.places.set(entries[place]!.name, place)
    this.skipPatches()
  }

  /** Is something remembered that was not given back yet? */
  get replaying(): boolean {
    return this.cursor < this.entries.length
  }

  /** The name under which the next use of `base` is remembered: itself, then `base#2`, … */
  nameOf(base: string): string {
    const count = (this.counts.get(base) ?? 0) + 1
    this.counts.set(base, count)
    return count === 1 ? base : `${base}#${count}`
  }

  /** Takes what was asked for: gives it back, begins it, or keeps it until its turn. A mismatch is for good. */
  ask(asked: A): Mismatch | undefined {
    const place = this.places.get(asked.name)
    if (place === undefined) {
      if (this.replaying || this.held.length > 0) this.held.push(asked)
      else this.host.begin(asked)
      return undefined
    }
    const entry = this.entries[place]!
    if (entry.kind !== asked.kind) {
      return { name: entry.name, expected: `${entry.name} (${entry.kind})`, found: `${asked.name} (${asked.kind})` }
    }
    asked.place = place
    this.asked[place] = asked
    this.advance()
    return undefined
  }

  /** Is this run beyond the place where `patched(name)` was put into the code? No: true, and new if it is. */
  patch(name: string): { patched: boolean, op: string | undefined } {
    const before = this.patches.get(name)
    if (before !== undefined) return { patched: before, op: undefined }
    const remembered = this.places.has(PATCH + name)
    const patched = remembered || !this.replaying
    this.patches.set(name, patched)
    return { patched, op: patched && !remembered ? PATCH + name : undefined }
  }

  /** The entry at the cursor has come; `ref` is taken away from it. */
  loaded(entry: Remembered, value: Pick<Remembered, 'result' | 'error'>): void {
    delete entry.ref
    entry.result = value.error === undefined ? value.result ?? null : undefined
    entry.error = value.error
    this.busyAt = -1
    this.advance()
  }

  /** What had to be done again in its place is over. */
  passed(asked: A): void {
    if (asked.place !== this.cursor || this.busyAt !== this.cursor) return
    this.busyAt = -1
    this.cursor++
    this.advance()
  }

  /** What an idle handler waits for out of turn; undefined: nothing. */
  stuck(): Mismatch | undefined {
    if (!this.replaying || this.busyAt === this.cursor) return undefined
    const found = this.held[0] ?? this.asked.find((asked, place) => asked !== undefined && place > this.cursor)
    return found === undefined ? undefined : this.mismatch(found.name)
  }

  /** What a handler that has finished left out; undefined: nothing. */
  left(): Mismatch | undefined {
    return this.replaying ? this.mismatch('end') : undefined
  }

  private mismatch(found: string): Mismatch {
    const { name } = this.entries[this.cursor]!
    return { name, expected: name, found }
  }

  private advance(): void {
    if (this.replaying) {
      const asked = this.asked[this.cursor]
      if (asked === undefined || this.busyAt === this.cursor) return
      this.busyAt = this.cursor
      return this.host.later(() => this.give(asked, this.entries[this.cursor]!))
    }
    const held = this.held
    this.held = []
    for (const asked of held) this.host.begin(asked)
  }

  private give(asked: A, entry: Remembered): void {
    if (entry.ref !== undefined) return this.host.load(entry)
    if (entry.error === undefined && entry.result === undefined) return this.host.begin(asked)
    this.asked[this.cursor] = undefined
    this.busyAt = -1
    this.cursor++
    this.skipPatches()
    this.host.deliver(asked, entry)
    this.advance()
  }

  private skipPatches(): void {
    while (this.cursor < this.entries.length && this.entries[this.cursor]!.name.startsWith(PATCH)) this.cursor++
  }
}
