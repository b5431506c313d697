// What a call has to commit and has not committed yet, in its order: waiting, or under way.

import type { Op } from './commit.js'

const LAZY_OPS_MAX = 100
const LAZY_OPS_KEPT_MAX = 1000

export class Outbox {
  private waiting: Op[] = []
  private underWay: Op[] = []
  private lazy = 0
  private caught: string[] = []

  get length(): number {
    return this.waiting.length
  }

  /** An op that somebody waits for, or that has to be there before the next one. */
  push(text: string, done?: Op['done']): void {
    this.waiting.push({ text, named: true, done })
  }

  /** An op that nobody waits for: it goes with the next one. True: there is a crowd of them, worth a request. */
  pushLazy(text: string): boolean {
    this.waiting.push({ text, named: false })
    return ++this.lazy >= LAZY_OPS_MAX
  }

  /** Are there more lazy ones than an answer should carry? */
  get full(): boolean {
    return this.lazy >= LAZY_OPS_KEPT_MAX
  }

  /** Puts an op in the place of the one that began in the same way and has not gone yet. */
  replace(beginning: string, text: string): boolean {
    const before = this.waiting.findIndex(op => op.text.startsWith(beginning))
    if (before >= 0) this.waiting[before] = { text, named: false }
    return before >= 0
  }

  /** The error of a step that was thrown to the handler: kept if the handler goes on. */
  catch(text: string): void {
    this.caught.push(text)
  }

  /** The handler goes on. */
  keepCaught(): void {
    if (this.caught.length === 0) return
    for (const text of this.caught) this.push(text)
    this.caught = []
  }

  /** Sends off the oldest, up to about so many characters. */
  take(charsMax: number): Op[] {
    let count = 0
    let chars = 0
    while (count < this.waiting.length && (count === 0 || chars + this.waiting[count]!.text.length <= charsMax)) {
      chars += this.waiting[count++]!.text.length
    }
    this.underWay = this.waiting.splice(0, count)
    this.lazy = 0
    return this.underWay
  }

  /** What was under way has arrived. */
  arrived(): Op[] {
    const ops = this.underWay
    this.underWay = []
    return ops
  }

  /** What was under way waits again. How many of all have somebody waiting for them? */
  back(): number {
    this.waiting = this.underWay.concat(this.waiting)
    this.underWay = []
    return this.waiting.filter(({ done }) => done !== undefined).length
  }

  /** What an answer carries, each op followed by a comma. */
  texts(): string {
    let texts = ''
    // What is under way without anybody waiting for it may or may not arrive: its name tells it apart.
    for (const op of this.underWay) if (op.named) texts += `${op.text},`
    for (const op of this.waiting) texts += `${op.text},`
    return texts
  }
}
