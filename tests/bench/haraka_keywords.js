// Phrases in the text of a message, caseless: the message is accepted and dropped by queue/discard. Haraka ships no such plugin.
// And no look-up of the client's name: there is no DNS here, and no other system of the benchmark asks it.
'use strict'

exports.register = function () {
    const phrases = this.config.get('keywords', 'list')
    this.phrases = []
    // a hundred alternatives in one pattern
    for (let start = 0; start < phrases.length; start += 100) {
        this.phrases.push(new RegExp(phrases.slice(start, start + 100).join('|'), 'i'))
    }
}

exports.hook_lookup_rdns = (next) => next(OK, 'generator.example')

exports.hook_data = function (next, connection) {
    connection.transaction.parse_body = true
    next()
}

exports.hook_data_post = function (next, connection) {
    const { transaction } = connection
    if (this.matches(transaction.body)) transaction.notes.discard = true
    next()
}

exports.matches = function (part) {
    if (!part) return false
    if (this.phrases.some((phrase) => phrase.test(part.bodytext))) return true
    return part.children.some((child) => this.matches(child))
}
