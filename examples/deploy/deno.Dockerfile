FROM denoland/deno:2.9.5
WORKDIR /app
USER deno
COPY deno.json deno.lock main.ts ./
RUN deno install --frozen --entrypoint main.ts
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["deno", "eval", "fetch('http://127.0.0.1:3000/ready').then(({ ok }) => Deno.exit(ok ? 0 : 1))"]
CMD ["deno", "run", "--frozen", "--cached-only", "--allow-net", "--allow-env", "main.ts"]
