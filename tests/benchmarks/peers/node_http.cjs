// Node's own HTTP server with better-sqlite3, one commit a request.
// node node_http.cjs DATABASE    prints its URL
'use strict';

const http = require('node:http');

const { isAuthentic, open } = require('./keep.cjs');

const keep = open(process.argv[2]);

function answer(response, status, document) {
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(document));
}

const server = http.createServer((request, response) => {
  if (request.method !== 'POST' || request.url !== '/webhooks/dreamship') {
    answer(response, 404, { error: 'not found' });
    return;
  }
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks);
    if (!isAuthentic(body, request.headers['x-dreamship-signature'])) {
      answer(response, 401, { error: 'bad signature' });
      return;
    }
    try {
      answer(response, 200, { outcome: keep(body) });
    } catch (error) {
      console.error(error);
      answer(response, 503, { error: 'not stored' });
    }
  });
});

server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
