// Fastify with better-sqlite3, one commit a request.
// node fastify_app.cjs DATABASE    prints its URL
'use strict';

const fastify = require('fastify');

const { isAuthentic, open } = require('./keep.cjs');

const keep = open(process.argv[2]);
const app = fastify({ logger: false });

// The signature covers the bytes of the body, so the body stays a buffer.
app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
  done(null, body);
});

app.post('/webhooks/dreamship', (request, reply) => {
  if (!isAuthentic(request.body, request.headers['x-dreamship-signature'])) {
    reply.code(401).send({ error: 'bad signature' });
    return;
  }
  reply.send({ outcome: keep(request.body) });
});

app.listen({ host: '127.0.0.1', port: 0 }).then((address) => console.log(address));
