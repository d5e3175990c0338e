/** Places in the log, `epoch:offset`. */

export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A position, or null where the text is none. */
export function parsePosition(text: string | null | undefined): Position | null {
  const colon = text?.lastIndexOf(":") ?? -1;
  if (!text || colon < 1) return null;
  const offset = Number(text.slice(colon + 1));
  return Number.isSafeInteger(offset) && offset >= 0 ? { epoch: text.slice(0, colon), offset } : null;
}

/** Whether the first lies at or after the second, in one log. */
export function reaches(text: string, goal: string): boolean {
  const [one, other] = [parsePosition(text), parsePosition(goal)];
  return one !== null && other !== null && one.epoch === other.epoch && one.offset >= other.offset;
}
