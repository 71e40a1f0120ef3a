/** A part of the page, with an entry in its navigation. */
export interface View {
  /** In the address of the page, after `#`. */
  readonly name: string;
  readonly title: string;
  readonly element: HTMLElement;
  /** A second has passed, or so. */
  tick(isShown: boolean): void;
  /** It is shown. @param rest of the address, after the name */
  open?(rest: string): void;
}
