import type { Position } from "../../src/engines/engine.ts";
import type { Dice } from "./dice.ts";
import type { Order } from "./faults.ts";
import type { SeededTurns } from "./seeded-turns.ts";
import type { SimulationOptions } from "./simulation.ts";
import type { AnyClient, ClientNode } from "./simulated-client.ts";
import type { VirtualTime } from "../../src/testing/virtual-time.ts";

/** What the servers of a simulation are built on. */
export interface Ground {
  readonly options: SimulationOptions;
  /** Choices of the whole schedule. */
  readonly dice: Dice;
  readonly time: VirtualTime;
  readonly turns: SeededTurns;
  readonly elapsed: number;
  readonly clients: readonly AnyClient[];
  readonly channels: readonly string[];
  /** Users whose rights are taken in this round. */
  readonly banned: Set<string>;
  /** Users and channels, as {@link pairOf}, whose permission is taken in this round. */
  readonly withdrawn: Set<string>;
  wait(ms: number): Promise<void>;
  say(text: string): void;
  failed(error: unknown): void;
}

export const pairOf = (user: string, channel: string): string => `${user} ${channel}`;

/** Publishes on one node. Resolves with the position; `null` without a history. */
export type Publish = (channel: string, event: string, data: unknown) => Promise<Position | null>;

/** A member as a node lists it. */
export interface ListedMember {
  readonly user: string;
  readonly data?: unknown;
}

/** The servers of a simulation, with what fails of them and what they know. */
export interface Site {
  readonly nodes: readonly ClientNode[];
  /** Whether something that was acknowledged may be lost, so that a recovery may fail. */
  readonly isLossy: boolean;
  /** The orders of the last rounds, for which clients may be disconnected. */
  readonly orders: readonly Order[];
  /** How often each fault has happened. */
  readonly counts: Readonly<Record<string, number>>;
  /** Whether a fault of this round is not over. */
  readonly isActive: boolean;
  /** Whether nothing was lost without a sign in this round, so that everybody has caught up soon after its end. */
  readonly isPrompt: boolean;
  /** Whether credentials expire. */
  readonly hasExpiry: boolean;
  /** Whether no member can have left in this round without its client. */
  readonly isHarmless: boolean;
  /** Time without faults until every node has noticed everything, in ms. */
  readonly settled: number;
  start(): void;
  /** Begins the faults of a round. @param busy time in which they begin, in ms. @param end when all are over, in ms since the start. */
  begin(busy: number, end: number): void;
  /** Nothing fails from now on, until the next round. */
  calm(): void;
  /** One of the nodes that run, if any does. */
  publisher(dice: Dice): Publish | undefined;
  /** Where the history of the channel ends. */
  end(channel: string): Position | undefined;
  /** Whether everything after the position is still in the history. */
  reaches(channel: string, position: Position): boolean;
  /** The members of a channel, by each node. */
  memberLists(channel: string): readonly (readonly [source: string, list: () => Promise<readonly ListedMember[]>])[];
  /** The orders since a time that all nodes must have carried out. */
  dueOrders(since: number): readonly Order[];
  /** Ends everything. Resolves with what is wrong with what is left. */
  stop(): Promise<readonly string[]>;
}
