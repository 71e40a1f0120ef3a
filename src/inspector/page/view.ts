/** A part of the page, with an entry in its navigation. */
export interface View {
  /** In the address of the page, after `#`. */
  readonly name: string;
  readonly title: string;
  readonly element: HTMLElement;
  /** Called about once a second. */
  tick(isShown: boolean): void;
  /** Called when the view is shown. @param rest the part of the address after the name */
  open?(rest: string): void;
}
