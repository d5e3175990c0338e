import type { Observable, Unsubscribe } from "./types.ts";

/** An immutable value that is replaced as a whole; listeners are called after each change. */
export class Store<Value> implements Observable<Value> {
  private value: Value;
  private readonly listeners = new Set<() => void>();

  constructor(value: Value) {
    this.value = value;
  }

  // Bound, because React calls them without the object.
  readonly getSnapshot = (): Value => this.value;

  readonly subscribe = (listener: () => void): Unsubscribe => {
    const own = () => listener(); // so that the same function may subscribe twice
    this.listeners.add(own);
    return () => void this.listeners.delete(own);
  };

  set(value: Value): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const listener of [...this.listeners]) listener();
  }
}

/** Change some fields of a stored object; nothing is told where none differs. */
export function patch<Value extends object>(store: Store<Value>, changes: Partial<Value>): void {
  const before = store.getSnapshot();
  const differs = (Object.keys(changes) as (keyof Value)[]).some((key) => !Object.is(before[key], changes[key]));
  if (differs) store.set({ ...before, ...changes });
}
