import type { EventMap } from "@gapless/core";

/**
 * Names the application's events once, for all hooks:
 *
 *     declare module "@gapless/react" {
 *       interface Register { events: { "lead:updated": { leadId: string; name: string } } }
 *     }
 */
export interface Register {}

/** The events that `Register` names; without it, any. */
export type Events = Register extends { events: infer Named extends object } ? Named : EventMap;
