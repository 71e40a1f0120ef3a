/** Puts changes into source text, of the kind that a mistake makes: each behind `__change(number)`, which chooses it while the code runs. */
import ts from "typescript-5.4";

/** One expression or statement, and what a mistake would have made of it. */
export interface Change {
  /** `path:line:column` */
  readonly place: string;
  readonly before: string;
  readonly after: string;
}

const SWAPS: Partial<Record<ts.SyntaxKind, string>> = {
  [ts.SyntaxKind.LessThanToken]: "<=",
  [ts.SyntaxKind.LessThanEqualsToken]: "<",
  [ts.SyntaxKind.GreaterThanToken]: ">=",
  [ts.SyntaxKind.GreaterThanEqualsToken]: ">",
  [ts.SyntaxKind.EqualsEqualsEqualsToken]: "!==",
  [ts.SyntaxKind.ExclamationEqualsEqualsToken]: "===",
  [ts.SyntaxKind.MinusToken]: "+",
  [ts.SyntaxKind.AmpersandAmpersandToken]: "||",
  [ts.SyntaxKind.BarBarToken]: "&&",
};

/**
 * The source with every change in it.
 *
 * @param changes gets the changes. The place of one in it is its number.
 */
export function instrument(path: string, text: string, changes: Change[]): string {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  const declare = (node: ts.Node, after: string): number => {
    const { line, character } = file.getLineAndCharacterOfPosition(node.getStart());
    const before = node.getText().replace(/\s+/g, " ");
    return changes.push({ place: `${path}:${line + 1}:${character + 1}`, before, after }) - 1;
  };
  /** The text of the node, with the changes of its children. */
  const inner = (node: ts.Node): string => {
    let out = "";
    let at = node.getFullStart();
    ts.forEachChild(node, (child) => {
      out += text.slice(at, child.getFullStart()) + emit(child);
      at = child.getEnd();
    });
    return out + text.slice(at, node.getEnd());
  };
  const choose = (node: ts.Node, changed: string, shown = changed): string =>
    `(__change(${declare(node, shown)}) ? ${changed} : (${inner(node)}))`;
  const emit = (node: ts.Node): string => {
    if (ts.isTypeNode(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return node.getFullText();
    if (ts.isBinaryExpression(node)) {
      const { left, operatorToken, right } = node;
      const swap = SWAPS[operatorToken.kind];
      if (swap) return ` ${choose(node, `(${left.getText()}) ${swap} (${right.getText()})`)}`;
      if (operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken) return ` ${choose(node, `(${left.getText()})`)}`;
    }
    if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
      return ` ${choose(node, `(${node.operand.getText()})`)}`;
    }
    if (node.kind === ts.SyntaxKind.TrueKeyword && !ts.isLiteralTypeNode(node.parent)) return ` ${choose(node, "false")}`;
    if (node.kind === ts.SyntaxKind.FalseKeyword && !ts.isLiteralTypeNode(node.parent)) return ` ${choose(node, "true")}`;
    if (ts.isIfStatement(node)) {
      const { expression, thenStatement, elseStatement } = node;
      const shown = expression.getText().replace(/\s+/g, " ");
      const [never, always] = [declare(expression, "false"), declare(expression, `true || ${shown}`)];
      const condition = `(__change(${never}) ? false : __change(${always}) ? true : (${emit(expression)}))`;
      return ` if (${condition}) ${emit(thenStatement)}${elseStatement ? ` else ${emit(elseStatement)}` : ""}`;
    }
    if (ts.isExpressionStatement(node) && !node.getText().startsWith("super")) {
      // In braces: an `else` that follows belongs to the statement around it.
      return ` { if (!__change(${declare(node, "nothing")})) {${inner(node)}} }`;
    }
    return inner(node);
  };
  return emit(file) + text.slice(file.getEnd());
}
