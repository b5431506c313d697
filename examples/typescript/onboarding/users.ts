// The app's own database, as far as an example needs one: a file for each user.

import { mkdirSync } from 'node:fs'
import { readFile, rename, writeFile } from 'node:fs/promises'

export interface User {
  id: string
  email: string
  unlocked: boolean
}

export class Users {
  constructor(private readonly folder: string) {
    mkdirSync(folder, { recursive: true })
  }

  async create(id: string, email: string): Promise<User> {
    console.log(`creating ${id}`)
    return this.write({ id, email, unlocked: false })
  }

  async unlock(id: string): Promise<void> {
    console.log(`unlocking ${id}`)
    const user = await this.find(id)
    if (user === null) throw new Error(`there is no user ${id}`)
    await this.write({ ...user, unlocked: true })
  }

  async find(id: string): Promise<User | null> {
    try {
      return JSON.parse(await readFile(this.path(id), 'utf8')) as User
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw error
    }
  }

  private async write(user: User): Promise<User> {
    await writeFile(`${this.path(user.id)}.new`, JSON.stringify(user))
    await rename(`${this.path(user.id)}.new`, this.path(user.id)) // a crash leaves the old file or the new one
    return user
  }

  private path(id: string): string {
    return `${this.folder}/${encodeURIComponent(id)}.json`
  }
}
