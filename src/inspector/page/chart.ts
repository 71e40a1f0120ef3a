const SVG = "http://www.w3.org/2000/svg";

/** Size of the coordinates. The picture is as large as its place. */
const [WIDTH, HEIGHT] = [300, 48];

/** Number of values that are shown at first, and at most: one minute and five, one value each second. */
const [MIN_VALUES, MAX_VALUES] = [60, 300];

/** A small chart of the last minutes. It has no text: the number beside it says the value. */
export class Chart {
  readonly element: SVGSVGElement;
  readonly #line = document.createElementNS(SVG, "path");
  readonly #area = document.createElementNS(SVG, "path");
  readonly #values: number[] = [];

  constructor() {
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("class", "chart");
    this.element.setAttribute("aria-hidden", "true");
    this.#area.setAttribute("class", "area");
    this.#line.setAttribute("class", "line");
    this.element.append(this.#area, this.#line);
  }

  add(value: number): void {
    this.#values.push(value);
    if (this.#values.length > MAX_VALUES) this.#values.shift();
  }

  draw(): void {
    const largest = Math.max(1, ...this.#values) * 1.1;
    const step = WIDTH / (Math.max(MIN_VALUES, this.#values.length) - 1);
    const points = this.#values.map((value, index) => {
      const x = WIDTH - (this.#values.length - 1 - index) * step;
      return `${x.toFixed(1)},${(HEIGHT - 1 - value / largest * (HEIGHT - 2)).toFixed(1)}`;
    });
    if (points.length < 2) return;
    const line = `M${points.join("L")}`;
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${line}L${WIDTH},${HEIGHT}L${points[0]!.split(",")[0]},${HEIGHT}Z`);
  }
}
